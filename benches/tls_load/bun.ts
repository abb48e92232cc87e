// Rooms on Bun's own publish and subscribe, over TLS where CERTIFICATE and KEY name files; `J<room>` joins and is
// said back, `P<room>|<payload>` publishes. For benches/tls.
const { PORT, CERTIFICATE, KEY } = process.env;
const server = Bun.serve({
  port: +PORT!, hostname: '127.0.0.1',
  tls: CERTIFICATE ? { cert: Bun.file(CERTIFICATE), key: Bun.file(KEY!) } : undefined,
  fetch(request, server) {
    if (server.upgrade(request)) return;
    return new Response('websocket only', { status: 426 });
  },
  websocket: {
    idleTimeout: 960, maxPayloadLength: 1 << 20, backpressureLimit: 16 << 20, sendPings: false, perMessageDeflate: false,
    message(socket, message) {
      const text = message as string;
      if (text[0] === 'P') {
        const bar = text.indexOf('|');
        server.publish(text.slice(1, bar), text.slice(bar + 1));
      } else {
        socket.subscribe(text.slice(1));
        socket.send(text);
      }
    },
  },
});
console.log('up');
