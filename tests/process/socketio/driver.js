// Official Socket.IO clients that Python drives by commands, in Node (client.js) as in a page (page.js): several
// connections, each with several namespaces. Bytes are `{"$bytes": base64}` between Python and here.
'use strict';

function makeDriver({ Manager }) {
  const toBase64 = (bytes) => {
    let text = '';
    for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
    return btoa(text);
  };
  const pack = (value) => {
    if (value instanceof ArrayBuffer) return { $bytes: toBase64(new Uint8Array(value)) };
    if (ArrayBuffer.isView(value)) {
      return { $bytes: toBase64(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) };
    }
    if (Array.isArray(value)) return value.map(pack);
    if (value !== null && typeof value === 'object') {
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, pack(one)]));
    }
    return value;
  };
  const unpack = (value) => {
    if (Array.isArray(value)) return value.map(unpack);
    if (value !== null && typeof value === 'object') {
      if ('$bytes' in value) return Uint8Array.from(atob(value.$bytes), (char) => char.charCodeAt(0));
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, unpack(one)]));
    }
    return value;
  };
  const connections = new Map();
  const socketOf = ({ connection, namespace }) => connections.get(connection).sockets.get(namespace);
  return {
    open({ connection, url, options }) {
      const manager = new Manager(url, { ...options, reconnectionDelay: 50, reconnectionDelayMax: 200 });
      connections.set(connection, { manager, sockets: new Map() });
    },
    // What is heard in a namespace waits for `next`, in order.
    enter({ connection, namespace, auth }) {
      const { manager, sockets } = connections.get(connection);
      const socket = manager.socket(namespace, { auth });
      const heard = [];
      const waiting = [];
      const tell = (...what) => {
        if (waiting.length > 0) waiting.shift()(pack(what));
        else heard.push(pack(what));
      };
      sockets.set(namespace, {
        socket,
        next: () => new Promise((resolve) => {
          if (heard.length > 0) resolve(heard.shift());
          else waiting.push(resolve);
        }),
      });
      socket.on('connect', () => tell('connect'));
      socket.on('connect_error', (error) => tell('connect_error', error.message, error.data ?? null));
      socket.on('disconnect', (reason) => tell('disconnect', reason));
      socket.onAny((event, ...args) => {
        const ack = args.at(-1);
        if (typeof ack === 'function') {
          args.pop();
          if (event !== 'silence') ack('answer', ...args);
        }
        tell('event', event, ...args);
      });
    },
    next: (command) => socketOf(command).next(),
    emit(command) {
      socketOf(command).socket.emit(command.event, ...unpack(command.args));
    },
    ask: (command) => new Promise((resolve) => {
      const { socket } = socketOf(command);
      const asked = command.timeout_ms ? socket.timeout(command.timeout_ms) : socket;
      asked.emit(command.event, ...unpack(command.args), (...answer) => {
        if (command.timeout_ms) {
          const error = answer.shift();
          if (error) return resolve({ timeout: error.message });
        }
        return resolve({ answer: pack(answer) });
      });
    }),
    leave(command) {
      socketOf(command).socket.disconnect();
    },
    enterAgain(command) {
      socketOf(command).socket.connect();
    },
    transport: ({ connection }) => connections.get(connection).manager.engine.transport.name,
    // An Engine.IO message that no client would send.
    raw({ connection, message }) {
      connections.get(connection).manager.engine.write(message);
    },
    close({ connection }) {
      const { manager, sockets } = connections.get(connection);
      manager.reconnection(false);
      for (const { socket } of sockets.values()) socket.disconnect();
      manager.engine.close();
      connections.delete(connection);
    },
  };
}

if (typeof module !== 'undefined') module.exports = { makeDriver };
