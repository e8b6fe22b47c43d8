// A Minecraft client: node client.js (status|join) ADDRESS PORT NAME
// Prints what it sees: the status as JSON, or { joined } or { kicked }.
const net = require('net')
const protocol = require('minecraft-protocol')
const [what, address, port, name] = process.argv.slice(2)
const options = {
  host: name,
  port: Number(port),
  version: '1.16.1',
  username: 'anna',
  auth: 'offline',
  // The name is the one of the handshake, whatever it resolves to.
  connect: client => client.setSocket(net.connect(Number(port), address))
}
const say = value => { console.log(JSON.stringify(value)); process.exit(0) }
if (what === 'status') {
  protocol.ping({ ...options, closeTimeout: 10000 }, (error, status) => say(error ? { error: String(error) } : status))
} else {
  const client = protocol.createClient(options)
  client.on('login', () => say({ joined: true }))
  client.on('disconnect', packet => say({ kicked: packet.reason }))
  client.on('kick_disconnect', packet => say({ kicked: packet.reason }))
  client.on('error', error => say({ error: String(error) }))
  client.on('end', reason => say({ ended: reason }))
}
