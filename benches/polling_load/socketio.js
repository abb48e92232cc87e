'use strict';
// Socket.IO 4 by polling alone, for benches/polling: rooms, and whatever is published in them. PORT says where.
const { createServer } = require('node:http');
const { Server } = require('socket.io');

const http = createServer();
const io = new Server(http, { transports: ['polling'], serveClient: false, httpCompression: false, perMessageDeflate: false });
io.on('connection', (socket) => {
  socket.on('join', (room, acknowledge) => { socket.join(room); acknowledge(); });
  socket.on('pub', (room, payload) => { io.to(room).emit('msg', payload); });
});
http.keepAliveTimeout = 60000;
http.listen(Number(process.env.PORT), '127.0.0.1', 4096, () => console.log('up'));
