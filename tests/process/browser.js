// Chromium for the process tests: its own `WebSocket` and `EventSource`, in pages that Python drives. Each line of standard
// input is a command in JSON, each line of standard output its answer, matched by `id`; the end of the input
// ends the browser. What is sent is Python's: a page adds nothing but the browser's framing.
'use strict';

const readline = require('readline');
const { chromium } = require('playwright-core');

const ARGUMENTS = [
  '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

// Runs in the page: one socket or event source a page, and what it heard, in order.
function install() {
  const toBase64 = (buffer) => {
    const bytes = new Uint8Array(buffer);
    let text = '';
    for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
    return btoa(text);
  };
  const fromBase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
  let socket;
  let source;
  const streamed = { opens: 0, errors: 0, events: [] };
  const heard = [];
  const waiting = [];
  const tell = (what) => {
    if (waiting.length > 0) waiting.shift()(what);
    else heard.push(what);
  };
  window.driven = {
    // Answers once the socket is open or has failed to be; a close is told by `next`.
    open: ({ url, protocols }) => new Promise((resolve) => {
      socket = new WebSocket(url, protocols);
      socket.binaryType = 'arraybuffer';
      socket.onmessage = ({ data }) => tell(typeof data === 'string' ? { text: data } : { binary: toBase64(data) });
      socket.onclose = ({ code, reason, wasClean }) => {
        tell({ closed: { code, reason, wasClean } });
        resolve({ opened: false });
      };
      socket.onopen = () => resolve({ opened: true, protocol: socket.protocol, extensions: socket.extensions });
    }),
    send: ({ text, binary }) => socket.send(binary === undefined ? text : fromBase64(binary)),
    close: ({ code, reason }) => socket.close(code, reason),
    next: () => new Promise((resolve) => {
      if (heard.length > 0) resolve(heard.shift());
      else waiting.push(resolve);
    }),
    // An event source comes back by itself, so nothing here waits for it: `streamed` tells how it is.
    listen: ({ url, names, withCredentials }) => {
      source = new EventSource(url, { withCredentials });
      for (const name of names) {
        source.addEventListener(name, ({ data, lastEventId }) => streamed.events.push([name, data, lastEventId]));
      }
      source.onmessage = ({ data }) => streamed.events.push(['message', data]);
      source.onopen = () => { streamed.opens += 1; };
      source.onerror = () => { streamed.errors += 1; };
    },
    streamed: ({ from }) => ({ ...streamed, readyState: source.readyState, events: streamed.events.slice(from) }),
    unlisten: () => source.close(),
    emit: async ({ url, token, body }) => {
      const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` };
      const answer = await fetch(url, { method: 'POST', headers, body });
      return { status: answer.status, reply: await answer.json() };
    },
  };
}

async function main() {
  const [executablePath, ...more] = process.argv.slice(2);
  const browser = await chromium.launch({ executablePath, headless: true, args: [...ARGUMENTS, ...more] });
  const pages = new Map();
  let secured = null;
  const commands = {
    version: () => browser.version(),
    // What the last visit was secured with, or null.
    secured: () => secured,
    visit: async ({ page, url }) => {
      // A context of its own: nothing is shared between two users' pages.
      const context = await browser.newContext();
      const opened = await context.newPage();
      const answer = await opened.goto(url);
      secured = await answer.securityDetails();
      await opened.evaluate(install);
      pages.set(page, opened);
      return opened.evaluate(() => window.origin);
    },
    // Code of the documentation, as a page has it.
    script: async ({ page, content }) => { await pages.get(page).addScriptTag({ content }); },
    evaluate: ({ page, expression }) => pages.get(page).evaluate(expression),
  };
  const inPage = ({ page, command, ...arguments_ }) => pages.get(page).evaluate(
    ([command, arguments_]) => window.driven[command](arguments_), [command, arguments_],
  );
  const answer = (id, result) => console.log(JSON.stringify({ id, ...result }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { id, ...command } = JSON.parse(line);
    const run = commands[command.command] || inPage;
    Promise.resolve(run(command)).then(
      (value) => answer(id, { value }),
      (error) => answer(id, { error: error.message }),
    );
  }
  await browser.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
