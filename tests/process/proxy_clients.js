// Clients of the official library, each by a transport of its own, that talk in one room. Takes one JSON object
// from the command line, prints a line of JSON once all have heard all, and one for each line it reads: `state` how
// they are, `talk` the same after each has said something more.
'use strict';

const { io } = require('socket.io-client');

const { url, room, clients, messages, large } = JSON.parse(process.argv[2]);
const lines = require('node:readline').createInterface({ input: process.stdin });
const say = (said) => console.log(JSON.stringify(said));

const WAYS = {
  polling: { transports: ['polling'], upgrade: false },
  upgrade: { transports: ['polling', 'websocket'] },
  websocket: { transports: ['websocket'] },
};

// What the library knows of an end: of a poll that failed its status, its answer and what became of its socket.
function why(details) {
  const { message, description, context = {} } = details || {};
  return { message, description: String(description), status: context.status, answer: context.responseText };
}

class Member {
  constructor({ way, token }) {
    Object.assign(this, { way, heard: [], ended: null, why: null });
    this.socket = io(url, { ...WAYS[way], auth: { token }, forceNew: true, reconnection: false });
    this.socket.on('disconnect', (reason, details) => { this.ended = reason; this.why = why(details); });
    this.socket.on('connect_error', (error) => { this.ended = `refused: ${error.message}`; this.why = why(error); });
    this.socket.on('said', (data, meta) => this.heard.push([meta.seq, meta.from, data.number, data.bytes ? data.bytes.length : 0]));
  }

  async request(event, data) {
    const reply = await this.socket.timeout(20000).emitWithAck(event, data);
    if (!reply.ok) throw new Error(`${event}: ${JSON.stringify(reply)}`);
  }

  async publish(number, bytes) {
    const data = bytes ? { number, bytes: Buffer.alloc(bytes, 7) } : { number, text: 'größe 🎉' };
    await this.request('room:publish', { room, event: 'said', data });
  }

  get transport() {
    return this.socket.io.engine && this.socket.io.engine.transport.name;
  }
}

async function until(condition, what) {
  for (const end = Date.now() + 60000; !condition();) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function main() {
  const members = clients.map((client) => new Member(client));
  let expected = 0;
  const heard = async (number) => {
    expected += number;
    await until(() => members.every((member) => member.ended || member.heard.length >= expected), `${expected} messages`);
  };
  const state = () => members.map(({ way, transport, ended, why, heard }) => ({ way, transport, ended, why, heard }));

  await until(() => members.every((member) => member.socket.connected || member.ended), 'all to connect');
  if (members.some((member) => member.ended)) return say(state());
  await Promise.all(members.map((member) => member.request('room:join', { room })));
  // While some of them are still taking over from polling.
  await Promise.all(members.map(async (member) => {
    for (let number = 0; number < messages; number += 1) await member.publish(number);
  }));
  await heard(members.length * messages);
  if (large) {
    // All at once: whoever is still at one of them keeps the others.
    await Promise.all(members.map((member) => member.publish(messages, large)));
    await heard(members.length);
  }
  await until(() => members.every((member) => member.ended || (member.transport === 'polling') === (member.way === 'polling')), 'upgrades');
  say(state());
  for await (const line of lines) {
    if (line === 'talk') {
      await Promise.all(members.map((member) => member.publish('more')));
      await heard(members.length);
    }
    say(state());
  }
  members.forEach((member) => member.socket.close());
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
