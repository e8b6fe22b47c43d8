// A Minecraft server: node server.js PORT MOTD [ADDRESS]
const [port, motd, address] = process.argv.slice(2)
const settings = require('flying-squid/config/default-settings.json')

const server = require('flying-squid').createMCServer({
  ...settings,
  host: address || '127.0.0.1',
  port: Number(port),
  motd,
  version: '1.16.1',
  worldFolder: undefined,
  generation: { name: 'superflat', options: {} },
  logging: false,
  noConsoleOutput: true,
  'online-mode': false,
  'max-players': 7,
  'view-distance': 2
})
// A client that leaves is no reason to end.
server.on('error', () => {})
process.on('uncaughtException', () => {})
