// A second, independent client: Node's `ws`. Reads one JSON line of instructions from the command
// line, does what it says, and prints one JSON line of what it saw.
'use strict';

const WebSocket = require('ws');

const { url, token, room, count, how, tls } = JSON.parse(process.argv[2]);
const protocols = ['ringroom.v1.json'];
const options = { ...tls };
if (how === 'subprotocol') protocols.push('bearer.' + token);
else options.headers = { Authorization: 'Bearer ' + token };

const socket = new WebSocket(url, protocols, options);
const seen = { user: null, protocol: null, pushes: [], replies: {}, pong: false, close: null };

const request = (id, event, data) => socket.send(JSON.stringify({ id, event, data }));

socket.on('open', () => {
  seen.protocol = socket.protocol;
  socket.ping('hello');
});
socket.on('pong', (data) => { seen.pong = data.toString() === 'hello'; });
socket.on('message', (data, isBinary) => {
  if (isBinary) throw new Error('a text was promised');
  const message = JSON.parse(data.toString());
  if (message.event === 'connected') {
    seen.user = message.data.user;
    request('join', 'room:join', { room });
  } else if ('ok' in message) {
    seen.replies[message.id] = message;
    if (message.id === 'join') {
      console.error('joined');
      for (let n = 0; n < count; n += 1) {
        request('p' + n, 'room:publish', { room, event: 'from-node', data: { n, text: 'größe 🎉' } });
      }
    }
  } else if (message.room === room && 'seq' in message) {
    seen.pushes.push(message);
  }
  const replied = Object.keys(seen.replies).length === count + 1;
  if (replied && seen.pushes.length >= 2 * count && seen.pong) socket.close(1000, 'done');
});
socket.on('close', (code) => {
  seen.close = code;
  console.log(JSON.stringify(seen));
});
socket.on('error', (error) => {
  console.error(error.message);
  process.exitCode = 1;
});
