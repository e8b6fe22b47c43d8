#!/usr/bin/env python3
"""A UPnP router that misbehaves in one chosen way, where no real one can be made to.

    fake_igd.py MODE [--ip ADDR] [--port N] [--ssdp N] [--unicast] [--until-eof] ...

Needs no right but to bind its ports. Prints `READY <ip>:<http port> ssdp <ssdp port>`, then one line for each request
on standard error: `<client> <action> -> <status> [<error code>] <openings>`, or `<client> reads <path>` for its
description. It also has the mappings of NEIGHBOURS, which it does not print; a line `touched: ...` says that one of them
was changed or deleted. Ends with its standard input (--until-eof).

SIGUSR1  restarts the router: every opening but the neighbours' is forgotten, and BOOTID is another
SIGUSR2  moves the description: the old address of it is gone

MODES
  good        a plain router of the first version
  permanent   725 unless the lease is 0            sameport    724 unless both ports are the same
  conflict    718 for every port                   deny        606
  nodesc      718 with an empty errorDescription   full        728
  code501     501 for everything                   wan0        external address 0.0.0.0
  nowan       external address empty               nospecific  no GetSpecificPortMappingEntry, and a broken entry listed
  forget      says OK and keeps nothing            lie         says OK and maps to another machine
  twowan      two connections, the first is down   noscpd      404 for the description of actions
  bigdesc     a description without end            bigsoap     answers without end
  slowdesc    a description with a byte a second   slowsoap    answers likewise
  hangdesc    takes the request for the description, and never answers
  hangsoap    the same for every other request
  laughs      an entity bomb in the description
  wide        900 kB of empty elements in the description
  widesoap    100 kB of empty elements in answers
  deep        200000 elements inside each other
  redirect    302 to --other for the description
  location    LOCATION names --other               control     controlURL names --other
  junk        50 malformed search answers, then a good one
  dying       answers, then closes in the middle of the body
  literal     knows header names only in the spelling of the UPnP documents, and closes on any other
  spaced      a space before each colon of a head      folded      each value on a line of its own
  bareheads   line feeds alone end the lines of a head
  nolength    no length, and the connection stays open chunked     in chunks of 7 bytes, the connection stays open
  longlength  a length that is too large by 100, and the connection stays open
  shortlength a length that is too small by 40
  lost402     whatever is open: 402 for each look-up   lost501, lost713, lost714: the same with these codes
  silent      answers no search
"""
import argparse
import itertools
import os
import re
import signal
import socket
import sys
import threading
import time

SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
ARGUMENTS = {
    "AddPortMapping": "RemoteHost ExternalPort Protocol InternalPort InternalClient Enabled"
    " PortMappingDescription LeaseDuration",
    "DeletePortMapping": "RemoteHost ExternalPort Protocol",
    "GetGenericPortMappingEntry": "PortMappingIndex",
    "GetSpecificPortMappingEntry": "RemoteHost ExternalPort Protocol",
    "GetExternalIPAddress": "",
}
# The spelling of the UPnP documents (UPnP Device Architecture 1.0, sections 1.2.2 and 3.2.1; SOAP 1.1, section 6.1.1).
SPELLINGS = {
    "POST": ("HOST", "CONTENT-LENGTH", "CONTENT-TYPE", "SOAPAction"),
    "GET": ("HOST",),
    "M-SEARCH": ("HOST", "MAN", "MX", "ST"),
}
# What AddPortMapping answers in a mode, whatever it is asked.
REFUSALS = {
    "conflict": (718, "ConflictInMappingEntry"),
    "nodesc": (718, ""),
    "deny": (606, "Action not authorized"),
    "full": (728, "NoPortMapsAvailable"),
}

# Mappings of other clients: one with a text like ours, one that leads to the machine of the daemon.
NEIGHBOURS = {
    ("TCP", "7001"): ("192.168.77.3", "9080", "portway:web@elsewhere", "0"),
    ("TCP", "7002"): ("127.0.0.1", "8022", "ssh", "0"),
}


def arguments():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("mode")
    parser.add_argument("--ip", default="127.0.0.1", help="the address to bind and to name")
    parser.add_argument("--port", type=int, default=0, help="of the description and of requests")
    parser.add_argument("--ssdp", type=int, default=1900, help="the port of the search; 0 for any")
    parser.add_argument("--unicast", action="store_true", help="do not join the multicast group")
    parser.add_argument("--wan", default="11.99.0.1", help="the external address")
    parser.add_argument("--other", default="http://192.0.2.99:80/x.xml", help="where odd addresses lead")
    parser.add_argument("--until-eof", action="store_true", help="end with standard input")
    return parser.parse_args()


class Router:
    """What the router keeps: openings, the number of its start, where its description is."""

    def __init__(self):
        self.lock = threading.Lock()
        self.openings = dict(NEIGHBOURS)
        self.boot = 1
        self.root = 1

    def openings_of_others(self):
        """The openings without those of the neighbours, which must be as they were."""
        touched = [key for key, value in NEIGHBOURS.items() if self.openings.get(key) != value]
        if touched:
            log(f"touched: {touched}")
        return {key: value for key, value in self.openings.items() if key not in NEIGHBOURS}

    def restart(self, *_):
        self.openings = dict(NEIGHBOURS)
        self.boot += 1

    def move(self, *_):
        self.root += 1

    def path(self):
        return f"/root{self.root}.xml"


ARGS = arguments()
MODE = ARGS.mode
ROUTER = Router()


def log(line):
    # One write, so that the lines of requests side by side stay whole.
    os.write(sys.stderr.fileno(), f"{line}\n".encode())


def service(control):
    return (
        f"<service><serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>"
        f"<SCPDURL>/scpd.xml</SCPDURL><controlURL>{control}</controlURL><eventSubURL>/evt</eventSubURL></service>"
    )


def description():
    services = service(ARGS.other if MODE == "control" else "/ctl")
    if MODE == "twowan":
        services = service("/down") + services
    device = "<device><deviceType>urn:schemas-upnp-org:device:{0}:1</deviceType>"
    return (
        '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">'
        "<specVersion><major>1</major><minor>0</minor></specVersion>"
        + device.format("InternetGatewayDevice")
        + f"<friendlyName>fake {MODE}</friendlyName><UDN>uuid:fake-{MODE}</UDN><deviceList>"
        + device.format("WANDevice")
        + "<UDN>uuid:fake-wan</UDN><deviceList>"
        + device.format("WANConnectionDevice")
        + f"<serviceList>{services}</serviceList>"
        + "</device></deviceList></device></deviceList></device></root>"
    )


def scpd():
    def action(name, names):
        inputs = "".join(
            f"<argument><name>New{n}</name><direction>in</direction></argument>" for n in names.split()
        )
        return f"<action><name>{name}</name><argumentList>{inputs}</argumentList></action>"

    actions = "".join(action(*one) for one in ARGUMENTS.items())
    return (
        '<?xml version="1.0"?><scpd xmlns="urn:schemas-upnp-org:service-1-0">'
        f"<actionList>{actions}</actionList></scpd>"
    )


def envelope(body):
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">'
        f"<s:Body>{body}</s:Body></s:Envelope>"
    )


def fault(code, text):
    return 500, envelope(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
        f"<errorCode>{code}</errorCode><errorDescription>{text}</errorDescription></UPnPError></detail></s:Fault>"
    )


def done(action, body=""):
    return 200, envelope(f'<u:{action}Response xmlns:u="{SERVICE}">{body}</u:{action}Response>')


def entry(key):
    client, port, text, lease = ROUTER.openings[key]
    return (
        f"<NewInternalPort>{port}</NewInternalPort><NewInternalClient>{client}</NewInternalClient>"
        f"<NewEnabled>1</NewEnabled><NewPortMappingDescription>{text}</NewPortMappingDescription>"
        f"<NewLeaseDuration>{lease}</NewLeaseDuration>"
    )


def add(action, value):
    if MODE in REFUSALS:
        return fault(*REFUSALS[MODE])
    if MODE == "permanent" and value("LeaseDuration") != "0":
        return fault(725, "OnlyPermanentLeasesSupported")
    if MODE == "sameport" and value("ExternalPort") != value("InternalPort"):
        return fault(724, "SamePortValuesRequired")
    if MODE == "forget":
        return done(action)
    key = (value("Protocol"), value("ExternalPort"))
    client = "192.168.77.200" if MODE == "lie" else value("InternalClient")
    if key in ROUTER.openings and ROUTER.openings[key][0] != client:
        return fault(718, "ConflictInMappingEntry")
    text, lease = value("PortMappingDescription"), value("LeaseDuration")
    ROUTER.openings[key] = (client, value("InternalPort"), text, lease)
    return done(action)


def listed(action, index):
    # Another program's entry, whose text the router cut in the middle of a reference.
    broken = 1 if MODE == "nospecific" else 0
    if index < broken:
        return done(action, "<NewRemoteHost></NewRemoteHost><NewPortMappingDescription>a &am</NewPortMappingDescription>")
    keys = sorted(ROUTER.openings)
    if index - broken >= len(keys):
        return fault(713, "SpecifiedArrayIndexInvalid")
    protocol, port = key = keys[index - broken]
    head = "<NewRemoteHost></NewRemoteHost>"
    head += f"<NewExternalPort>{port}</NewExternalPort><NewProtocol>{protocol}</NewProtocol>"
    return done(action, head + entry(key))


def answer(action, body, path):
    def value(name):
        found = re.search(f"<New{name}>(.*?)</New{name}>", body, re.S)
        return found[1] if found else ""

    if MODE == "code501":
        return fault(501, "Action Failed")
    if action == "GetExternalIPAddress":
        wan = {"wan0": "0.0.0.0", "nowan": ""}.get(MODE, ARGS.wan)
        return done(action, f"<NewExternalIPAddress>{'' if path == '/down' else wan}</NewExternalIPAddress>")
    if path == "/down":
        return fault(501, "Action Failed")
    if MODE.startswith("lost") and "PortMappingEntry" in action:
        return fault(int(MODE[4:]), "")
    with ROUTER.lock:
        key = (value("Protocol"), value("ExternalPort"))
        if action == "AddPortMapping":
            return add(action, value)
        if action == "DeletePortMapping":
            gone = ROUTER.openings.pop(key, None)
            return done(action) if gone else fault(714, "NoSuchEntryInArray")
        if action == "GetSpecificPortMappingEntry" and MODE != "nospecific":
            return done(action, entry(key)) if key in ROUTER.openings else fault(714, "NoSuchEntryInArray")
        if action == "GetGenericPortMappingEntry":
            return listed(action, int(value("PortMappingIndex") or 0))
    return fault(401, "Invalid Action")


def send(client, code, text):
    body = text.encode()
    length = len(body) + {"longlength": 100, "shortlength": -40}.get(MODE, 0)
    lines = ["Content-Type: text/xml", f"Content-Length: {length}", "Connection: close"]
    if code == 302:
        lines.append(f"Location: {ARGS.other}")
    if MODE in ("nolength", "chunked", "longlength"):
        lines.remove("Connection: close")
    if MODE in ("nolength", "chunked"):
        lines.remove(f"Content-Length: {length}")
    if MODE == "chunked":
        lines.append("Transfer-Encoding: chunked")
        chunks = [body[at : at + 7] for at in range(0, len(body), 7)] + [b""]
        body = b"".join(b"%x;part\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    client.sendall(head_of(f"HTTP/1.1 {code} X", lines) + body)
    if "Connection: close" not in lines:
        # It waits for the next request, as long as the client has patience.
        client.settimeout(300)
        client.recv(1)


def head_of(status, lines):
    if MODE == "spaced":
        lines = [line.replace(":", " :", 1) for line in lines]
    if MODE == "folded":
        lines = [line.replace(": ", ":\r\n\t ", 1) for line in lines]
    end = "\n" if MODE == "bareheads" else "\r\n"
    return end.join([status, *lines, "", ""]).encode()


def is_spelt(head):
    """Whether each name that the documents print stands there as they print it."""
    names = [line.split(":")[0] for line in head.split("\r\n")[1:]]
    missing = [name for name in SPELLINGS.get(head.split()[0], ()) if name not in names]
    if missing:
        log(f"lacks {missing} in {names}")
    return not missing


def send_endless(client):
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\n\r\n")
    client.sendall(b'<?xml version="1.0"?><root>')
    while True:
        client.sendall(b"<a>" + b"x" * 60000 + b"</a>")


def send_slowly(client, text):
    body = text.encode()
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    for at in range(len(body)):
        client.sendall(body[at : at + 1])
        time.sleep(1)


def send_description(client):
    if MODE == "bigdesc":
        send_endless(client)
    elif MODE == "slowdesc":
        send_slowly(client, description())
    elif MODE == "hangdesc":
        time.sleep(300)
    elif MODE == "redirect":
        send(client, 302, "")
    elif MODE == "laughs":
        entities = '<!ENTITY a0 "' + "ha" * 50 + '">'
        entities += "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 9))
        send(client, 200, f'<?xml version="1.0"?><!DOCTYPE r [{entities}]><root><x>&a8;</x></root>')
    elif MODE == "deep":
        send(client, 200, "<a>" * 200000)
    elif MODE == "wide":
        send(client, 200, description().replace("</root>", "<a/>" * 225000 + "</root>"))
    elif MODE == "dying":
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n<root>")
    else:
        send(client, 200, description())


def read_request(client):
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(4096)
        if not more:
            return None
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    head = head.decode("latin1")
    length = re.search(r"(?i)content-length: *(\d+)", head)
    while length and len(body) < int(length[1]):
        body += client.recv(4096)
    return head, body.decode("utf8", "replace")


def send_answer(client, peer, head, body):
    found = re.search(r'(?i)soapaction: *"?[^#"]*#(\w+)', head)
    action = found[1] if found else "?"
    if MODE == "bigsoap":
        return send_endless(client)
    if MODE == "hangsoap":
        return time.sleep(300)
    code, text = answer(action, body, head.split()[1])
    # Before a client knows the answer, and so that the last line always has what is kept now.
    with ROUTER.lock:
        log(f"{peer[0]} {action} -> {code} {re.findall('<errorCode>([0-9]+)', text)} {ROUTER.openings_of_others()}")
    if MODE == "slowsoap":
        return send_slowly(client, text)
    if MODE == "widesoap":
        text = text.replace("</s:Body>", "<a/>" * 25000 + "</s:Body>")
    return send(client, code, text)


def serve(client, peer):
    try:
        client.settimeout(60)
        request = read_request(client)
        if request is None:
            return
        head, body = request
        if MODE == "literal" and not is_spelt(head):
            return
        path = head.split()[1]
        if path == ROUTER.path():
            log(f"{peer[0]} reads {path}")
            send_description(client)
        elif path.startswith("/scpd") and MODE != "noscpd":
            send(client, 200, scpd())
        elif head.startswith("POST"):
            send_answer(client, peer, head, body)
        else:
            send(client, 404, "")
    except OSError as error:
        log(f"{peer[0]} gone: {error}")
    finally:
        client.close()


def accept(listener):
    while True:
        client, peer = listener.accept()
        threading.Thread(target=serve, args=(client, peer), daemon=True).start()


def search_sockets():
    """The one that hears searches, and the one that answers them."""
    hears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if ARGS.unicast:
        hears.bind((ARGS.ip, ARGS.ssdp))
        return hears, hears
    hears.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    hears.bind(("", ARGS.ssdp))
    group = socket.inet_aton("239.255.255.250") + socket.inet_aton(ARGS.ip)
    hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    answers.bind((ARGS.ip, 0))
    return hears, answers


def answer_searches(hears, answers, port):
    junk = [
        b"\xff\xfe" * 300,
        b"HTTP/1.1 200 OK\r\nLOCATION: http://[::1/\r\n\r\n",
        b"",
        b"LOCATION:",
        b"HTTP/1.1 200 OK\r\nLOCATION: file:///etc/passwd\r\n\r\n",
    ]
    while True:
        data, peer = hears.recvfrom(2048)
        found = re.search(rb"(?i)\r\nst: *([^\r\n]*)", data)
        target = found[1].decode("latin1") if found else ""
        wanted = data.startswith(b"M-SEARCH") and ("Gateway" in target or "WANIP" in target)
        if not wanted or MODE == "silent":
            continue
        if MODE == "literal" and not is_spelt(data.decode("latin1")):
            continue
        location = ARGS.other if MODE == "location" else f"http://{ARGS.ip}:{port}{ROUTER.path()}"
        if MODE == "junk":
            # One of them is large; more would fill the socket, and the rest would not be read.
            answers.sendto(b"A" * 60000, peer)
            for one in itertools.islice(itertools.cycle(junk), 49):
                answers.sendto(one, peer)
        lines = ["CACHE-CONTROL: max-age=120", f"ST: {target}", f"USN: uuid:fake-{MODE}::{target}", "EXT:"]
        lines += ["SERVER: fake", f"LOCATION: {location}", f"BOOTID.UPNP.ORG: {ROUTER.boot}"]
        answers.sendto(head_of("HTTP/1.1 200 OK", lines), peer)


def end_with_input():
    while os.read(0, 4096):
        pass
    os._exit(0)


def main():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((ARGS.ip, ARGS.port))
    listener.listen(16)
    port = listener.getsockname()[1]
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    if ARGS.until_eof:
        threading.Thread(target=end_with_input, daemon=True).start()
    signal.signal(signal.SIGUSR1, ROUTER.restart)
    signal.signal(signal.SIGUSR2, ROUTER.move)
    hears, answers = search_sockets()
    print(f"READY {ARGS.ip}:{port} ssdp {hears.getsockname()[1]}", flush=True)
    answer_searches(hears, answers, port)


main()
