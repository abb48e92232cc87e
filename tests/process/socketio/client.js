// The official client for the process tests: each line of standard input is a command of driver.js in JSON, each
// line of standard output its answer, matched by `id`. The end of the input ends it. With a path to Chromium the
// clients are in pages of it, with the bundle that the package has for browsers: `visit` opens one.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const { makeDriver } = require('./driver.js');

const ARGUMENTS = [
  '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

async function inChromium(executablePath) {
  const { chromium } = require('playwright-core');
  const browser = await chromium.launch({ executablePath, headless: true, args: ARGUMENTS });
  const bundle = path.join(path.dirname(require.resolve('socket.io-client/package.json')), 'dist', 'socket.io.min.js');
  let page;
  return {
    async run({ command, ...arguments_ }) {
      if (command === 'visit') {
        page = await (await browser.newContext()).newPage();
        await page.goto(arguments_.url);
        await page.addScriptTag({ path: bundle });
        await page.addScriptTag({ content: fs.readFileSync(path.join(__dirname, 'driver.js'), 'utf8') });
        await page.evaluate('window.driver = makeDriver(io)');
        return page.evaluate('window.origin');
      }
      return page.evaluate(([name, given]) => window.driver[name](given), [command, arguments_]);
    },
    end: () => browser.close(),
  };
}

function inNode() {
  const driver = makeDriver(require('socket.io-client'));
  return { run: async ({ command, ...arguments_ }) => driver[command](arguments_), end: () => process.exit(0) };
}

async function main() {
  const clients = process.argv[2] ? await inChromium(process.argv[2]) : inNode();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { id, ...command } = JSON.parse(line);
    clients.run(command).then(
      (value) => console.log(JSON.stringify({ id, value })),
      (error) => console.log(JSON.stringify({ id, error: error.message })),
    );
  }
  await clients.end();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
