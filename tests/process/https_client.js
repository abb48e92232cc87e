// Node's `https`: two requests on a kept-alive socket of `/socket.io/`, then one on a new socket that shows the first
// one's ticket. Takes one JSON object from the command line, prints one line of JSON of what it saw.
'use strict';

const https = require('node:https');

const { host, port, tls } = JSON.parse(process.argv[2]);
const path = '/socket.io/?EIO=4&transport=polling';

function ask(agent, options = {}) {
  return new Promise((resolve, reject) => {
    https.get({ host, port, path, agent, ...tls, ...options }, (response) => {
      const { socket } = response;
      const seen = {
        status: response.statusCode, protocol: socket.getProtocol(), alpn: socket.alpnProtocol,
        authorized: socket.authorized, resumed: socket.isSessionReused(), port: socket.localPort, body: '',
      };
      response.setEncoding('utf8').on('data', (text) => { seen.body += text; }).on('end', () => resolve(seen)).on('error', reject);
    }).on('error', reject);
  });
}

async function main() {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ALPNProtocols: ['h2', 'http/1.1'] });
  let session;
  agent.on('keylog', (line, socket) => socket.on('session', (given) => { session = given; }));
  const seen = [await ask(agent), await ask(agent)];
  seen.push(await ask(false, { session, ALPNProtocols: ['http/1.1'] }));
  agent.destroy();
  console.log(JSON.stringify(seen));
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
