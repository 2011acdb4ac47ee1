"""One VM: its qemu, and the sockets by which the lab holds it. No socket of IP and no file: what a VM
sends reaches the lab's own segment and nothing else, and nothing is left when the lab ends."""

import os
import signal
import socket
import subprocess
from collections import deque

from packages import program

# Frames that wait for a slow VM; more are dropped, as by a switch.
WAITING_FRAMES = 1024
# Of the kernel's messages, as much is kept.
CONSOLE_BYTES = 64 * 1024
# Buffers of a segment's sockets, in bytes: some hundred full frames.
FRAME_BUFFER = 1024 * 1024


class Machine:
    """VM `number` of `options.vms`. With `terminal` its console is this terminal."""

    def __init__(self, number, options, image, initrd, terminal=False):
        self.number = number
        # Exit code of its script; None until it has ended.
        self.code = None
        self.frames = deque(maxlen=WAITING_FRAMES)
        self.console_text = b""
        self.line = b""
        self.told = b""
        self.net, net = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.output, output = socket.socketpair()
        self.control, control = socket.socketpair()
        self.console, console = socket.socketpair()
        for end in (self.net, net):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, FRAME_BUFFER)
        for end in (self.net, self.output, self.control, self.console):
            end.setblocking(False)
        theirs = {"net": net, "output": output, "control": control, "console": console}
        fds = {name: end.fileno() for name, end in theirs.items()}
        self.qemu = subprocess.Popen(
            arguments(number, options, image, initrd, fds, terminal),
            pass_fds=[*fds.values(), initrd],
            stdin=None if terminal else subprocess.DEVNULL,
            stdout=None if terminal else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for end in theirs.values():
            end.close()

    @property
    def name(self):
        return f"vm{self.number}"

    def send(self, frame):
        """Gives the VM a frame of its segment, now or when it can take it."""
        self.frames.append(frame)
        self.flush()

    def flush(self):
        try:
            while self.frames:
                self.net.send(self.frames[0])
                self.frames.popleft()
        except (BlockingIOError, ConnectionError):
            pass

    def keep_console(self, data):
        self.console_text = (self.console_text + data)[-CONSOLE_BYTES:]

    def end(self):
        """Ends it without asking; gives what qemu itself had to say."""
        self.qemu.kill()
        said = self.qemu.stderr.read().decode(errors="replace").strip()
        self.qemu.wait()
        for end in (self.net, self.output, self.control, self.console):
            end.close()
        return said


def arguments(number, options, image, initrd, fds, terminal):
    console = "stdio,signal=off" if terminal else f"socket,fd={fds['console']}"
    size = os.get_terminal_size() if terminal else os.terminal_size((80, 24))
    # What the kernel does not know it hands to init as environment.
    line = [
        "console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check audit=0",
        f"VM={number} VMS={options.vms} TASK={options.task}",
        f"ROWS={size.lines or 24} COLUMNS={size.columns or 80}",
    ]
    return [
        # If the lab dies, so does the machine.
        *(program("setpriv"), "--pdeathsig", signal.SIGKILL.name.removeprefix("SIG"), "--"),
        program("qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", f"pc,accel={options.accel},usb=off"),
        *("-cpu", "host" if options.accel == "kvm" else "max"),
        *("-m", str(options.memory)),
        *("-kernel", image, "-initrd", f"/proc/self/fd/{initrd}", "-append", " ".join(line)),
        *("-netdev", f"socket,id=net,fd={fds['net']}"),
        *("-device", f"virtio-net-pci,netdev=net,romfile=,mac=52:54:00:99:00:{number:02x}"),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"{console},id=console", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=output,fd={fds['output']}"),
        *("-device", "virtserialport,chardev=output,nr=1"),
        *("-chardev", f"socket,id=control,fd={fds['control']}"),
        *("-device", "virtserialport,chardev=control,nr=2"),
    ]
