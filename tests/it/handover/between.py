"""Stands between the two processes of a hand-over, and disturbs it at a chosen message.

    between.py MESSAGE ACTION FILE PROGRAM ARGUMENTS...

MESSAGE is the first word of a message of either side, such as `receipt` or `go`. ACTION is what happens before it is
passed on: `silence`, `kill-new`, `kill-old`, `cut` (half of it arrives, and the new process is killed), or `wait` (until
FILE exists). With the action `format-N`, every message has the format N, as if another version had written it: so has what
the new process says of itself. With the action `note`, FILE gets a line for each message: its name and its descriptors. The program is started as the new process; it takes this one for the old one.
"""

import array
import ctypes
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time

MESSAGE, ACTION, FILE, *COMMAND = sys.argv[1:]
SCM_MAX_FD = 253
PR_SET_PDEATHSIG = 1


def receive(sock, length):
    """So many bytes, and the descriptors that came with them; None at the end."""
    data, fds = b"", []
    while len(data) < length:
        part, more, _, _ = socket.recv_fds(sock, length - len(data), SCM_MAX_FD)
        fds += more
        if not part:
            return None, fds
        data += part
    return data, fds


def frame(sock):
    """The next frame: its bytes, its descriptors and its name."""
    head, fds = receive(sock, 16)
    if head is None:
        return None
    _, _, _, record, held = struct.unpack("<4sHHII", head)
    body, more = receive(sock, record + held)
    if body is None:
        return None
    said = json.loads(body[:record])
    return head + body, fds + more, said if isinstance(said, str) else next(iter(said))


def send(sock, data, fds):
    """Passes a frame on."""
    first = socket.send_fds(sock, [data[:16]], fds) if fds else sock.send(data[:16])
    sock.sendall(data[first:])
    for fd in fds:
        os.close(fd)


def start(dies_with_us):
    """The new process, and our end of the connection to it."""
    ours, theirs = socket.socketpair()
    libc = ctypes.CDLL(None)

    def prepare():
        if dies_with_us:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    new = subprocess.Popen(COMMAND, stdin=theirs, preexec_fn=prepare)
    theirs.close()
    return new, ours


def main():
    old = socket.socket(fileno=0)
    new, to_new = start(ACTION != "kill-old")
    watch = selectors.DefaultSelector()
    watch.register(old, selectors.EVENT_READ, to_new)
    watch.register(to_new, selectors.EVENT_READ, old)
    while True:
        for key, _ in watch.select():
            got = frame(key.fileobj)
            if got is None:
                # One end is the end of both.
                old.close()
                to_new.close()
                sys.exit(new.wait())
            data, fds, name = got
            if ACTION.startswith("format-"):
                data = as_of_format(int(ACTION.removeprefix("format-")), data, name)
            if ACTION == "note":
                with open(FILE, "a") as notes:
                    notes.write(f"{name} {len(fds)}\n")
            if name == MESSAGE:
                disturb(new, key.data, data, fds)
            send(key.data, data, fds)


def as_of_format(number, data, name):
    """The same message, as a program of this format would write it."""
    _, _, descriptors, record, held = struct.unpack("<4sHHII", data[:16])
    body, rest = data[16 : 16 + record], data[16 + record :]
    if name == "hello":
        said = json.loads(body)
        said["hello"]["format"] = number
        body = json.dumps(said).encode()
    return struct.pack("<4sHHII", b"PwHO", number, descriptors, len(body), held) + body + rest


def disturb(new, to, data, fds):
    """What the test wants."""
    if ACTION == "silence":
        new.send_signal(signal.SIGSTOP)
        time.sleep(3600)
    if ACTION == "kill-new":
        new.kill()
        new.wait()
        sys.exit(1)
    if ACTION == "cut":
        to.sendall(data[: len(data) // 2])
        new.kill()
        new.wait()
        sys.exit(1)
    if ACTION == "kill-old":
        os.kill(os.getppid(), signal.SIGKILL)
        sys.exit(0)
    if ACTION == "wait":
        while not os.path.exists(FILE):
            time.sleep(0.01)


main()
