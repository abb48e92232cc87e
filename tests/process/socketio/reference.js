// The official server, serving what `examples/socketio_app.rs` serves: the oracle that the cases are checked
// against (`run.py --socketio-reference`). No part of `tests/run`.
'use strict';

const http = require('node:http');
const { parseArgs } = require('node:util');
const engine = require('engine.io');
const { Server } = require('socket.io');

const { values } = parseArgs({
  options: {
    listen: { type: 'string', default: '127.0.0.1:0' },
    'ping-interval': { type: 'string', default: '25000' },
    'ping-timeout': { type: 'string', default: '20000' },
    'max-payload': { type: 'string', default: '1000000' },
  },
});
const [host, port] = values.listen.split(':');
const settings = {
  pingInterval: Number(values['ping-interval']),
  pingTimeout: Number(values['ping-timeout']),
  maxHttpBufferSize: Number(values['max-payload']),
  cors: { origin: true, credentials: true },
  // Two of them share the port.
  destroyUpgrade: false,
};

const server = http.createServer((request, response) => {
  response.writeHead(404);
  response.end();
});

engine.attach(server, { ...settings, path: '/engine.io/' }).on('connection', (socket) => {
  socket.on('message', (message) => socket.send(message));
});

const io = new Server(server, { ...settings, path: '/socket.io/', serveClient: false });

function serve(socket) {
  const namespace = socket.nsp;
  socket.emit('auth', socket.handshake.auth);
  socket.on('message', (...args) => socket.emit('message-back', ...args));
  socket.on('message-with-ack', (...args) => args.pop()(...args));
  socket.on('ask-me', (...args) => {
    socket.emit('question', ...args, (...answer) => socket.emit('answer-was', ...answer));
  });
  socket.on('join', (room, ack) => {
    socket.join(room);
    ack();
  });
  socket.on('leave', (room, ack) => {
    socket.leave(room);
    ack();
  });
  socket.on('to-room', (room, ...args) => socket.to(room).emit('room-message', ...args));
  socket.on('broadcast', (...args) => namespace.emit('broadcast-back', ...args));
  socket.on('burst', (number) => {
    for (let i = 0; i < number; i += 1) socket.emit('burst-item', i);
  });
  socket.on('disconnect-me', (close) => socket.disconnect(close));
}

io.of('/').on('connection', serve);
io.of('/custom').on('connection', serve);
io.of('/protected').use((socket, next) => {
  if (socket.handshake.auth.token === 'let-me-in') return next();
  const refused = new Error('unauthorized');
  refused.data = { reason: 'bad token' };
  return next(refused);
}).on('connection', serve);

server.listen(Number(port), host, () => {
  // The line of ringroom's own programs; there is no operators' port here.
  console.log(`ready data=${host}:${server.address().port} ops=${host}:0 shards=1 io=node`);
});
process.on('SIGTERM', () => {
  io.close();
  // Some clients do not answer a close.
  setTimeout(() => process.exit(0), 200);
});
