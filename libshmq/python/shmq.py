# SPDX-License-Identifier: MIT
"""shmq: a shared-memory message bus, from Python.

Pure ctypes over libshmq.so.0; nothing is compiled.  What a subscriber hands out
is a memoryview of the shared memory itself: no byte is copied.  It is valid until
the next call on that subscriber, which releases it.

    with shmq.Bus() as bus:
        bus.create("prices", exist_ok=True)
        with bus.publisher("prices") as pub, bus.subscriber("prices") as sub:
            pub.publish(b"AAPL 189.70")
            message = sub.receive(timeout=1)
            print(message.seq, bytes(message.data))

The library is that of $SHMQ_LIBRARY, else libshmq.so.0 where the loader finds it.
A handle is for one thread at a time, close() among its calls.  One that is forgotten is
closed, but not before what it handed out.  Times are seconds; None waits for ever.
"""

import ctypes
import errno
import os
import select
import signal
import socket
import threading
import time
import weakref
from ctypes import c_char_p, c_int, c_int32, c_int64, c_size_t, c_ssize_t, c_uint, c_uint16, c_uint32, c_uint64, c_void_p

__all__ = ["Bus", "Publisher", "Subscriber", "Requester", "Responder", "Message", "Request", "Error", "Empty",
           "Timeout", "Lost", "Ended", "Moved", "Refused", "Gone", "Nobody", "version"]

# ---- shmq.h --------------------------------------------------------------

EFULL, EEMPTY, ETIMEOUT, EOVERRUN, EEVICTED, EENDED = -5001, -5002, -5003, -5004, -5005, -5006
EMOVED, EPEERDEAD, EOPTION, EEXISTS, EBUFFER, ENOBODY, EREFUSED = -5007, -5009, -5014, -5016, -5020, -5034, -5035
REPLIED, REFUSED, GONE, TIMED_OUT, LATE = 1, 2, 3, 4, 5
NAME_MAX = 255
FORCE = 1
ANY_PARTITION = -1
TOPIC_TAG, TOPIC_TIME, TOPIC_SPIN_ONLY = 1, 2, 4
SUB_END_WITH_PUBLISHERS, SUB_OBSERVE, SUB_RING_ONLY, SUB_CONFLATE, SUB_IN_PLACE = 1, 2, 4, 8, 16

_MODE = {"exclusive": 1, "shared": 2}
_POLICY = {"block": 1, "drop-new": 2, "lossy": 3, "evict": 4}
_FROM = {"latest": 1, "oldest": 2, "seq": 3, "time": 4, "cursor": 5}
_WAIT = {"adaptive": 1, "spin": 2, "yield": 3, "sleep": 4}
_LOG = {"none": 1, "block": 2, "gap": 3}
_SYNC = {"none": 1, "interval": 2, "batch": 3, "every": 4}
_CONFIRM = {"written": 1, "synced": 2}


class BusOptions(ctypes.Structure):
    _c_name_ = "shmq_bus_options"
    _fields_ = [("size", c_size_t), ("start", c_int), ("serve", c_int), ("runtime_dir", c_char_p),
                ("daemon_path", c_char_p), ("timeout_ns", c_int64), ("client_name", c_char_p),
                ("interruptible", c_int)]


class TopicOptions(ctypes.Structure):
    _c_name_ = "shmq_topic_options"
    _fields_ = [("size", c_size_t), ("depth", c_uint64), ("slot_bytes", c_uint32), ("partitions", c_uint32),
                ("max_message_bytes", c_uint64), ("mode", c_int), ("policy", c_int), ("stall", c_int),
                ("wait", c_int), ("pages", c_int), ("lock", c_int), ("node", c_int), ("flags", c_uint),
                ("evict_ns", c_int64), ("block_timeout_ns", c_int64), ("log", c_int), ("sync", c_int),
                ("sync_ns", c_int64), ("segment_bytes", c_uint64), ("retain_bytes", c_uint64),
                ("retain_ns", c_int64), ("tombstone_ns", c_int64), ("compress", c_int), ("log_dir", c_char_p)]


class TopicStats(ctypes.Structure):
    _c_name_ = "shmq_topic_stats"
    _fields_ = [(name, c_uint64) for name in ("sent", "sent_bytes", "dropped", "blocked", "received",
                                              "received_bytes", "lost", "sleeps", "wakes", "evictions")]


class TopicInfo(ctypes.Structure):
    _c_name_ = "shmq_topic_info"
    _fields_ = [("name", ctypes.c_char * (NAME_MAX + 1)), ("id", c_uint64), ("depth", c_uint64),
                ("max_message_bytes", c_uint64), ("slot_bytes", c_uint32), ("inline_bytes", c_uint32),
                ("partitions", c_uint32), ("flags", c_uint32), ("mode", c_int), ("policy", c_int), ("stall", c_int),
                ("wait", c_int), ("ended", c_int), ("ring_bytes", c_uint64), ("page_bytes", c_uint64),
                ("node_asked", c_int), ("node_actual", c_int), ("locked", c_int), ("log", c_int), ("sync", c_int),
                ("sync_ns", c_int64), ("segment_bytes", c_uint64), ("retain_bytes", c_uint64),
                ("retain_ns", c_int64), ("tombstone_ns", c_int64), ("compress", c_int), ("publishers", c_uint),
                ("subscribers", c_uint), ("head", c_uint64), ("sleepers", c_uint64), ("note", ctypes.c_char * 256),
                ("stats", TopicStats), ("arena_bytes", c_uint64)]


class PubOptions(ctypes.Structure):
    _c_name_ = "shmq_pub_options"
    _fields_ = [("size", c_size_t), ("wake", c_int), ("wake_ns", c_int64), ("arena_bytes", c_uint64),
                ("block_timeout_ns", c_int64), ("wait", c_int), ("flags", c_uint)]


class SubOptions(ctypes.Structure):
    _c_name_ = "shmq_sub_options"
    _fields_ = [("size", c_size_t), ("from_", c_int), ("seq", c_uint64), ("ts_ns", c_uint64),
                ("partition_plus1", c_int32), ("wait", c_int), ("spin_ns", c_int64), ("flags", c_uint),
                ("cursor", c_char_p)]


class Msg(ctypes.Structure):
    _c_name_ = "shmq_msg"
    _fields_ = [("data", c_void_p), ("len", c_size_t), ("key", c_void_p), ("key_len", c_size_t),
                ("properties", c_void_p), ("properties_len", c_size_t), ("seq", c_uint64), ("ts_ns", c_uint64),
                ("tag", c_uint64), ("lost", c_uint64), ("partition", c_int32), ("type", c_uint16),
                ("flags", c_uint16), ("lost_is_bound", c_uint32)]


class PubStats(ctypes.Structure):
    _c_name_ = "shmq_pub_stats"
    _fields_ = [(name, c_uint64) for name in ("sent", "sent_bytes", "dropped", "blocked", "wakes")]


class SubStats(ctypes.Structure):
    _c_name_ = "shmq_sub_stats"
    _fields_ = [(name, c_uint64) for name in ("received", "lost", "lost_is_bound", "lag", "sleeps",
                                              "received_bytes", "wakes")] + [("evicted", c_int), ("conflated", c_uint64)]


class RequesterOptions(ctypes.Structure):
    _c_name_ = "shmq_requester_options"
    _fields_ = [("size", c_size_t), ("max_reply_bytes", c_uint64), ("open_max", c_uint32), ("wait", c_int),
                ("spin_ns", c_int64)]


class Reply(ctypes.Structure):
    _c_name_ = "shmq_reply"
    _fields_ = [("msg", Msg), ("id", c_uint64), ("outcome", c_int), ("is_taken", c_int), ("client_id", c_uint)]


class RequesterStats(ctypes.Structure):
    _c_name_ = "shmq_requester_stats"
    _fields_ = [(name, c_uint64) for name in ("sent", "replied", "refused", "gone", "timed_out", "open", "late",
                                              "stray")]


class ResponderOptions(ctypes.Structure):
    _c_name_ = "shmq_responder_options"
    _fields_ = [("size", c_size_t), ("from_", c_int), ("wait", c_int), ("spin_ns", c_int64)]


class CRequest(ctypes.Structure):
    _c_name_ = "shmq_request"
    _fields_ = [("msg", Msg), ("requester", c_uint64), ("id", c_uint64), ("deadline_ns", c_uint64),
                ("uid", c_uint32), ("error", c_int), ("topic", ctypes.c_char * (NAME_MAX + 1))]


class ResponderStats(ctypes.Structure):
    _c_name_ = "shmq_responder_stats"
    _fields_ = [(name, c_uint64) for name in ("received", "replied", "refused", "late", "gone", "full",
                                              "requesters")]


_lib = ctypes.CDLL(os.environ.get("SHMQ_LIBRARY", "libshmq.so.0"))


def _declare(name, result, *arguments):
    function = getattr(_lib, name)
    function.restype, function.argtypes = result, arguments
    return function


_P = ctypes.POINTER
_strerror = _declare("shmq_strerror", c_char_p, c_int)
_errname = _declare("shmq_errname", c_char_p, c_int)
_version = _declare("shmq_version", c_char_p)
_bus_error = _declare("shmq_bus_error", c_char_p, c_void_p)
_bus_open = _declare("shmq_bus_open", c_int, c_char_p, _P(BusOptions), _P(c_void_p))
_bus_close = _declare("shmq_bus_close", None, c_void_p)
_interrupt = _declare("shmq_bus_interrupt", c_int, c_void_p)
_resume = _declare("shmq_bus_resume", c_int, c_void_p)
_topic_create = _declare("shmq_topic_create", c_int, c_void_p, c_char_p, _P(TopicOptions), c_void_p)
_topic_remove = _declare("shmq_topic_remove", c_int, c_void_p, c_char_p, c_uint)
_pub_open = _declare("shmq_pub_open", c_int, c_void_p, c_char_p, _P(PubOptions), _P(c_void_p))
_pub_close = _declare("shmq_pub_close", None, c_void_p)
_pub_topic = _declare("shmq_pub_get_topic", c_int, c_void_p, _P(TopicInfo))
_pub_stats = _declare("shmq_pub_get_stats", None, c_void_p, _P(PubStats))
_publish_msg = _declare("shmq_publish_msg", c_int, c_void_p, _P(Msg))
_claim = _declare("shmq_claim", c_int, c_void_p, c_size_t, _P(c_void_p))
_commit = _declare("shmq_commit", c_int, c_void_p, _P(Msg))
_abort = _declare("shmq_abort", c_int, c_void_p)
_flush = _declare("shmq_flush", c_int, c_void_p, c_int64)
_wait_subscribers = _declare("shmq_pub_wait_subscribers", c_int, c_void_p, c_uint, c_int64)
_wait_confirm = _declare("shmq_pub_wait_confirm", c_int, c_void_p, c_uint32, c_uint64, c_int, c_int64)
_sub_open = _declare("shmq_sub_open", c_int, c_void_p, c_char_p, _P(SubOptions), _P(c_void_p))
_sub_close = _declare("shmq_sub_close", None, c_void_p)
_sub_topic = _declare("shmq_sub_topic", c_char_p, c_void_p)
_sub_fd = _declare("shmq_sub_fd", c_int, c_void_p)
_sub_stats = _declare("shmq_sub_get_stats", None, c_void_p, _P(SubStats))
_receive = _declare("shmq_receive", c_int, c_void_p, _P(Msg), c_int64)
_receive_copy = _declare("shmq_receive_copy", c_int, c_void_p, c_void_p, c_size_t, _P(Msg), c_int64)
_view_check = _declare("shmq_view_check", c_int, c_void_p, _P(Msg))
_release = _declare("shmq_release", c_int, c_void_p)
_store_cursor = _declare("shmq_sub_store_cursor", c_int, c_void_p)
_requester_open = _declare("shmq_requester_open", c_int, c_void_p, c_char_p, _P(RequesterOptions), _P(c_void_p))
_requester_close = _declare("shmq_requester_close", None, c_void_p)
_requester_send = _declare("shmq_requester_send", c_int, c_void_p, _P(Msg), c_int64, _P(c_uint64))
_requester_next = _declare("shmq_requester_next", c_int, c_void_p, _P(Reply), c_int64)
_requester_stats = _declare("shmq_requester_get_stats", None, c_void_p, _P(RequesterStats))
_responder_open = _declare("shmq_responder_open", c_int, c_void_p, c_char_p, _P(ResponderOptions), _P(c_void_p))
_responder_close = _declare("shmq_responder_close", None, c_void_p)
_responder_receive = _declare("shmq_responder_receive", c_int, c_void_p, _P(CRequest), c_int64)
_responder_reply = _declare("shmq_responder_reply", c_int, c_void_p, _P(CRequest), _P(Msg))
_responder_refuse = _declare("shmq_responder_refuse", c_int, c_void_p, _P(CRequest), c_char_p)
_responder_stats = _declare("shmq_responder_get_stats", None, c_void_p, _P(ResponderStats))


def version():
    return _version().decode()


# ---- errors --------------------------------------------------------------


class Error(Exception):
    """A call failed; .code is what it returned, .name that by name."""

    def __init__(self, code, detail=""):
        text = _strerror(code).decode()
        super().__init__(f"{text}: {detail}" if detail else text)
        self.code, self.name = code, _errname(code).decode()


class Empty(Error):
    """Nothing is there, and it was not to be waited for."""


class Timeout(Error):
    """Nothing came in time."""


class Ended(Error):
    """The stream has ended."""


class Moved(Error):
    """The topic was moved to fresh rings: subscribe it again, of one partition with
    start="seq" and seq=.seq, which goes on where its new ring begins."""

    def __init__(self, code, msg):
        super().__init__(code)
        self.seq, self.partition = msg.seq, msg.partition


class Lost(Error):
    """Messages were lost: .lost of them, at most so many if .is_bound.  The next
    receive goes on behind them, unless the subscriber was evicted."""

    def __init__(self, code, msg):
        super().__init__(code, f"{msg.lost} lost")
        self.lost, self.is_bound, self.partition = msg.lost, bool(msg.lost_is_bound), msg.partition


class Refused(Error):
    """A request was refused: .why."""

    def __init__(self, code, why=""):
        super().__init__(code, why)
        self.why = why


class Gone(Error):
    """Whoever had the request, or waited for the answer, is gone."""


class Nobody(Error):
    """Nobody is there to answer; nothing was sent."""


_kinds = {EEMPTY: Empty, ETIMEOUT: Timeout, EENDED: Ended, EREFUSED: Refused, EPEERDEAD: Gone, ENOBODY: Nobody}


def _check(code):
    if code < 0:
        raise _kinds.get(code, Error)(code)
    return code


def _check_open(code):  # of calls that may explain their failure
    if code < 0:
        raise Error(code, _bus_error(None).decode(errors="replace"))


# ---- helpers -------------------------------------------------------------

_FOREVER = -1


class _Wait:
    """A wait of the main thread: on which bus, and whether a signal has ended it."""

    __slots__ = ("bus", "ended")

    def __init__(self, bus):
        self.bus, self.ended = bus, False


class _Signals:
    """Python runs handlers of signals, that of Ctrl-C too, in the main thread and not inside a call.
    When one comes it writes to a descriptor: while the main thread waits, that is ours, and a thread
    that reads it ends the wait.  So nobody looks for signals now and then.

    Handlers may wait themselves, and close the bus that was waited on: the lock can be taken again,
    and of handles only those of buses that are open are used, which it guards."""

    def __init__(self):
        self.lock, self.wait, self.came = threading.RLock(), None, b""
        self.reader = self.writer = None

    def call(self, bus, function, *arguments):
        """What it returns; -EINTR if it waited, and a signal came."""
        if not self.reader:
            self._start()
        wait, mine = _Wait(bus), self.writer.fileno()
        after = signal.set_wakeup_fd(mine, warn_on_full_buffer=False)  # an event loop's, as a rule -1
        try:
            with self.lock:
                outer, self.wait = self.wait, wait
                if outer and outer.ended:
                    self._take_back(outer)  # a handler waits, in that wait: it has been heard of
                elif after >= 0:
                    self._take()
                    self.came = b""
            return function(*arguments)
        finally:
            with self.lock:
                if self.wait is wait:
                    self.wait = outer
                if wait.ended:
                    self._take_back(wait)
            signal.set_wakeup_fd(after, warn_on_full_buffer=False)
            if 0 <= after != mine:
                self._hand_on(after)

    def _take_back(self, wait):
        if wait.bus._handle:
            _resume(wait.bus._handle)
        wait.ended = False

    def _hand_on(self, after):
        with self.lock:
            self._take()
            came, self.came = self.came, b""
        try:
            os.write(after, came)
        except OSError:
            pass  # it is full, so whose it is wakes anyway; or closed

    def _take(self):
        try:
            self.came = (self.came + self.reader.recv(4096, socket.MSG_DONTWAIT))[-4096:]
        except BlockingIOError:
            pass

    def _start(self):
        reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        threading.Thread(target=self._read, args=(reader,), name="shmq-signals", daemon=True).start()
        self.reader = reader

    def _read(self, reader):
        while True:
            select.select([reader], [], [])
            with self.lock:
                self._take()
                if self.wait and self.wait.bus._handle:
                    self.wait.ended = True
                    _interrupt(self.wait.bus._handle)


_signals = _Signals()
os.register_at_fork(after_in_child=_signals.__init__)


def _sleep(bus, function, *arguments):
    """A call that may wait, in which signals are heard of: -EINTR once one has come."""
    if threading.get_ident() == threading.main_thread().ident:
        return _signals.call(bus, function, *arguments)
    code = function(*arguments)
    if code == -errno.EINTR:  # it was for the main thread, which is about to take it back
        time.sleep(0.001)
    return code


def _wait(bus, call, timeout):
    """call(timeout_ns), which does not wait if there is no need to."""
    end = None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)
    code = call(0)
    while code in (EEMPTY, ETIMEOUT, -errno.EINTR):
        left = _FOREVER if end is None else end - time.monotonic_ns()
        if end is not None and left <= 0:
            return ETIMEOUT if timeout > 0 else code
        code = _sleep(bus, call, left)
    return code


def _pointer(data):
    """Address and length of a buffer, and what keeps it there.  Not copied, unless
    it is read-only and no bytes object."""
    if isinstance(data, str):
        data = data.encode()
    if isinstance(data, bytes):
        return ctypes.cast(c_char_p(data), c_void_p), len(data), data
    view = memoryview(data).cast("B")
    if view.readonly:
        return _pointer(view.tobytes())
    keep = (ctypes.c_char * view.nbytes).from_buffer(view)
    return ctypes.cast(keep, c_void_p), view.nbytes, keep


def _head(type, tag, partition):
    """A message of nothing yet.  ctypes would cut what does not fit, and say nothing."""
    for name, value, low, high in (("type", type, 0, 0xffff), ("tag", tag, 0, (1 << 64) - 1),
                                   ("partition", partition, ANY_PARTITION, (1 << 31) - 1)):
        if not low <= value <= high:
            raise ValueError(f"{name} is from {low} to {high}, not {value}")
    return Msg(type=type, tag=tag, partition=partition)


def _fill(data, key=None, properties=None, type=0, tag=0, partition=ANY_PARTITION):
    """A message, and what keeps its parts there."""
    msg, keep = _head(type, tag, partition), [None] * 3
    msg.data, msg.len, keep[0] = _pointer(data)
    if key is not None:
        msg.key, msg.key_len, keep[1] = _pointer(key)
    if properties is not None:
        msg.properties, msg.properties_len, keep[2] = _pointer(properties)
    return msg, keep


def _memory(address, length, handle=None):
    """Shared memory, which stays mapped as long as the handle is open: it has that."""
    memory = (ctypes.c_ubyte * length).from_address(address) if length else (ctypes.c_ubyte * 0)()
    memory._handle = handle
    return memory


def _word(words, value, what):
    if value is None:
        return 0
    if value not in words:
        raise ValueError(f"{what} is one of {', '.join(words)}, not {value!r}")
    return words[value]


def _c(text):
    return None if text is None else os.fsencode(text)


class _Handle:
    """Closes itself at the end of a with statement, or when nobody has it any more:
    publishers wait for subscribers, and others for who publishes alone."""

    def __del__(self):
        bus = getattr(self, "_bus", self)
        try:
            if bus._handle:  # else it was closed with that
                self.close()
        except (AttributeError, TypeError, BufferError):
            pass  # it was not opened; or Python is about to end

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.close()


# ---- bus -----------------------------------------------------------------


class Bus(_Handle):
    """An attachment to a bus; start=False fails if no supervisor runs."""

    def __init__(self, name=None, *, start=True, runtime_dir=None, client_name="python"):
        options = BusOptions(size=ctypes.sizeof(BusOptions), start=int(start), runtime_dir=_c(runtime_dir),
                             client_name=_c(client_name), interruptible=1)
        self._handle, self._open = c_void_p(), []
        _check_open(_bus_open(_c(name), ctypes.byref(options), ctypes.byref(self._handle)))

    def close(self):
        """Close its handles, and leave the bus."""
        for handle in [ref() for ref in self._open]:
            if handle is not None:
                handle.close()
        self._open = []
        with _signals.lock:
            handle, self._handle = self._handle, c_void_p()
        if handle:
            _bus_close(handle)

    def create(self, topic, *, depth=0, slot_bytes=0, partitions=0, max_message_bytes=0, mode=None, policy=None,
               log=None, sync=None, segment_bytes=0, retain_bytes=0, retain=0, tag=False, time=False,
               exist_ok=False):
        """Create a topic; shmq_topic_create(3) has the options.  With log="block" or "gap" it is on
        disk as well: sync is none, interval, batch or every, retain for how many seconds it is kept."""
        options = TopicOptions(size=ctypes.sizeof(TopicOptions), depth=depth, slot_bytes=slot_bytes,
                               partitions=partitions, max_message_bytes=max_message_bytes,
                               mode=_word(_MODE, mode, "mode"), policy=_word(_POLICY, policy, "policy"),
                               log=_word(_LOG, log, "log"), sync=_word(_SYNC, sync, "sync"),
                               segment_bytes=segment_bytes, retain_bytes=retain_bytes, retain_ns=int(retain * 1e9),
                               flags=TOPIC_TAG * tag | TOPIC_TIME * time)
        code = _topic_create(self._live(), _c(topic), ctypes.byref(options), None)
        if not (exist_ok and code == EEXISTS):
            _check_open(code)

    def remove(self, topic, *, force=False):
        _check_open(_topic_remove(self._live(), _c(topic), FORCE * force))

    def publisher(self, topic, **options):
        return self._keep(Publisher(self, topic, **options))

    def subscriber(self, topic, **options):
        return self._keep(Subscriber(self, topic, **options))

    def requester(self, topic, **options):
        return self._keep(Requester(self, topic, **options))

    def responder(self, topic, **options):
        return self._keep(Responder(self, topic, **options))

    def _live(self):
        if not self._handle:
            raise ValueError("the bus is closed")
        return self._handle

    def _keep(self, handle):
        self._open = [ref for ref in self._open if ref() is not None]
        self._open.append(weakref.ref(handle))
        return handle


# ---- publishing ----------------------------------------------------------


class Publisher(_Handle):
    def __init__(self, bus, topic, *, wait=None):
        options = PubOptions(size=ctypes.sizeof(PubOptions), wait=_word(_WAIT, wait, "wait"))
        self._bus, self._handle, self._claimed = bus, c_void_p(), None
        _check_open(_pub_open(bus._live(), _c(topic), ctypes.byref(options), ctypes.byref(self._handle)))
        info = TopicInfo()
        _check_open(_pub_topic(self._handle, ctypes.byref(info)))
        self._has_tags = info.flags & TOPIC_TAG
        self._may_wait = (info.policy in (_POLICY["block"], _POLICY["evict"]) or info.log == _LOG["block"] or
                          info.mode == _MODE["shared"])

    def close(self):
        """BufferError while something still looks at what was claimed."""
        if self._handle:
            self._end_claim()
            _pub_close(self._handle)
            self._handle = c_void_p()

    def publish(self, data, *, key=None, properties=None, type=0, tag=0, partition=ANY_PARTITION):
        """Publish a buffer; returns its partition and seq.  When Ctrl-C or a handler of another
        signal ends a wait for room by an exception, nothing was published.  Error (SHMQ_EOPTION):
        a tag, on a topic without tags."""
        msg, keep = _fill(data, key, properties, type, tag, partition)
        self._send(_publish_msg, msg)
        return msg.partition, msg.seq

    def claim(self, length):
        """A writable memoryview of so many bytes of shared memory, until commit()
        or abort()."""
        where = c_void_p()
        _check(_claim(self._live(), length, ctypes.byref(where)))
        view = memoryview(_memory(where.value, length, self)).cast("B")
        self._claimed = weakref.ref(view), weakref.ref(view.obj)
        return view

    def commit(self, *, type=0, tag=0, partition=ANY_PARTITION):
        """Publish what was claimed; returns its partition and seq.  BufferError while a
        slice of it is still held, by which it could be written afterwards.  After any other
        exception it may be called again: the claim stays open."""
        msg = _head(type, tag, partition)
        self._live()
        self._end_claim()
        self._send(_commit, msg)
        return msg.partition, msg.seq

    def abort(self):
        self._live()
        self._end_claim()
        _check(_abort(self._handle))

    def flush(self, timeout=None):
        """Wait until subscribers that publishers wait for have read all."""
        _check(_wait(self._bus, lambda ns: _flush(self._live(), ns), timeout))

    def wait_confirm(self, partition, seq, level="synced", timeout=None):
        """Wait until what publish() returned these of is in the topic's log: "written" it
        outlives every process, "synced" the machine."""
        level = _word(_CONFIRM, level, "level")
        _check(_wait(self._bus, lambda ns: _wait_confirm(self._live(), partition, seq, level, ns), timeout))

    def wait_subscribers(self, count=1, timeout=None):
        _check(_wait(self._bus, lambda ns: _wait_subscribers(self._live(), count, ns), timeout))

    @property
    def stats(self):
        out = PubStats()
        _pub_stats(self._live(), ctypes.byref(out))
        return {name: getattr(out, name) for name, _ in out._fields_}

    def _live(self):
        if not self._handle:
            raise ValueError("the publisher is closed")
        return self._handle

    def _send(self, call, msg):
        if msg.tag and not self._has_tags:
            raise Error(EOPTION, "the topic has no tags: create it with tag=True")
        if self._may_wait:
            code = -errno.EINTR
            while code == -errno.EINTR:
                code = _sleep(self._bus, call, self._live(), ctypes.byref(msg))
            _check(code)
        else:
            _check(call(self._live(), ctypes.byref(msg)))

    def _end_claim(self):
        if self._claimed is not None:
            view, memory = self._claimed
            if view() is not None:
                view().release()
            if memory() is not None:
                raise BufferError("a slice of what was claimed is still held: release it")
            self._claimed = None


# ---- subscribing ---------------------------------------------------------


class Message:
    """data, key and properties are memoryviews of shared memory, valid until the
    next call on the subscriber; with receive(copy=True) bytes, which stay."""

    __slots__ = ("data", "key", "properties", "seq", "ts_ns", "tag", "partition", "type", "__weakref__")


def _make(out, msg, made, handle=None):
    out.data = made(_memory(msg.data, msg.len, handle))
    out.key = made(_memory(msg.key, msg.key_len, handle)) if msg.key else None
    out.properties = made(_memory(msg.properties, msg.properties_len, handle)) if msg.properties else None
    for name in ("seq", "ts_ns", "tag", "partition", "type"):
        setattr(out, name, getattr(msg, name))
    return out


class Subscriber(_Handle):
    """Iterate over it for messages until the stream ends."""

    def __init__(self, bus, topic, *, start="latest", seq=0, ts_ns=0, partition=None, cursor=None, wait=None,
                 end_with_publishers=False, observe=False, ring_only=False, conflate=False, in_place=False):
        """conflate: only the newest message of each key, of those that came since.  in_place: of a log,
        see shmq_sub_open(3) for what that asks of its files."""
        options = SubOptions(size=ctypes.sizeof(SubOptions), from_=_word(_FROM, start, "start"), seq=seq,
                             ts_ns=ts_ns, partition_plus1=0 if partition is None else partition + 1,
                             wait=_word(_WAIT, wait, "wait"), cursor=_c(cursor),
                             flags=SUB_END_WITH_PUBLISHERS * end_with_publishers | SUB_OBSERVE * observe |
                             SUB_RING_ONLY * ring_only | SUB_CONFLATE * conflate | SUB_IN_PLACE * in_place)
        self._bus, self._handle, self._msg = bus, c_void_p(), Msg()
        self._views, self._memory = [], []
        self._buffer = ctypes.create_string_buffer(4096)
        _check_open(_sub_open(bus._live(), _c(topic), ctypes.byref(options), ctypes.byref(self._handle)))

    def close(self):
        """BufferError while something still looks at the last message."""
        if self._handle:
            self._give_back()
            _sub_close(self._handle)
            self._handle = c_void_p()

    def receive(self, timeout=None, *, copy=False):
        """The next Message; timeout=0 does not wait.  Raises Empty, Timeout, Ended,
        Lost, Moved; BufferError while a slice of the last one's views is still held,
        since its memory may be written over from now on."""
        self._live()
        self._give_back()
        msg = self._msg = Msg()
        code = _wait(self._bus, self._copy if copy else lambda ns: _receive(self._live(), ctypes.byref(msg), ns),
                     timeout)
        if code in (EOVERRUN, EEVICTED):
            raise Lost(code, msg)
        if code == EMOVED:
            raise Moved(code, msg)
        _check(code)
        return self._message(msg, bytes if copy else self._view)

    def check(self):
        """Whether the last message was whole until now: on topics where publishers do
        not wait it may be written over while it is looked at."""
        code = _view_check(self._live(), ctypes.byref(self._msg))
        if code not in (0, EOVERRUN):
            _check(code)
        return code == 0

    @property
    def topic(self):
        """Name of the topic of the last message, or error: of a pattern, one that it means."""
        return os.fsdecode(_sub_topic(self._live()))

    def fileno(self):
        """For selectors and event loops, as asyncio's add_reader(): readable until receive(timeout=0)
        raises Empty.  Goes with the subscriber."""
        return _check(_sub_fd(self._live()))

    def release(self):
        """Give the last message back now."""
        self._live()
        self._give_back()
        _check(_release(self._handle))

    def store_cursor(self):
        self._live()
        self._give_back()
        _check(_release(self._handle))
        _check(_store_cursor(self._handle))

    @property
    def stats(self):
        out = SubStats()
        _sub_stats(self._live(), ctypes.byref(out))
        return {name: getattr(out, name) for name, _ in out._fields_}

    def __iter__(self):
        while True:
            try:
                message = self.receive()
            except Ended:
                return
            yield message
            del message

    def _live(self):
        if not self._handle:
            raise ValueError("the subscriber is closed")
        return self._handle

    def _copy(self, ns):
        msg = self._msg
        code = _receive_copy(self._handle, self._buffer, len(self._buffer), ctypes.byref(msg), ns)
        if code != EBUFFER:
            return code
        self._buffer = ctypes.create_string_buffer(2 * (msg.len + msg.key_len + msg.properties_len))
        return self._copy(ns)

    def _view(self, memory):
        view = memoryview(memory).cast("B").toreadonly()
        self._views.append(weakref.ref(view))
        self._memory.append(weakref.ref(memory))
        return view

    def _message(self, msg, made):
        return _make(Message(), msg, made, self if made != bytes else None)

    def _give_back(self):
        for view in [ref() for ref in self._views]:
            if view is not None:
                view.release()
        self._views = []
        self._memory = [ref for ref in self._memory if ref() is not None]
        if self._memory:
            raise BufferError("a slice of the last message is still held: release it, or copy it by bytes()")


# ---- request and reply ---------------------------------------------------


class Requester(_Handle):
    """Asks on a topic, one request at a time."""

    def __init__(self, bus, topic, *, max_reply_bytes=0, wait=None):
        options = RequesterOptions(size=ctypes.sizeof(RequesterOptions), max_reply_bytes=max_reply_bytes, open_max=1,
                                   wait=_word(_WAIT, wait, "wait"))
        self._bus, self._handle = bus, c_void_p()
        _check_open(_requester_open(bus._live(), _c(topic), ctypes.byref(options), ctypes.byref(self._handle)))

    def close(self):
        if self._handle:
            _requester_close(self._handle)
            self._handle = c_void_p()

    def request(self, data, *, key=None, properties=None, type=0, timeout=5):
        """Ask, and wait for the reply: a Message, whose data, key and properties are
        bytes.  Raises Refused, Gone, Timeout, Nobody.  After an exception of another
        kind, such as KeyboardInterrupt, the next request waits until this one is over.
        A signal that ends its sending by an exception leaves nothing sent."""
        msg, keep = _fill(data, key, properties, type)
        reply, number = Reply(), c_uint64()
        while self.stats["open"]:
            self._next(reply)
        end, code = None if timeout is None else time.monotonic_ns() + int(timeout * 1e9), -errno.EINTR
        while code == -errno.EINTR:
            left = _FOREVER if end is None else max(end - time.monotonic_ns(), 0)
            code = _sleep(self._bus, _requester_send, self._live(), ctypes.byref(msg), left, ctypes.byref(number))
        _check(code)
        while reply.id != number.value or reply.outcome == LATE:
            self._next(reply)
        if reply.outcome == REFUSED:
            raise Refused(EREFUSED, bytes(_memory(reply.msg.data, reply.msg.len)).decode(errors="replace"))
        _check({GONE: EPEERDEAD, TIMED_OUT: ETIMEOUT}.get(reply.outcome, 0))
        return _make(Message(), reply.msg, bytes)

    @property
    def stats(self):
        out = RequesterStats()
        _requester_stats(self._live(), ctypes.byref(out))
        return {name: getattr(out, name) for name, _ in out._fields_}

    def _next(self, reply):
        _check(_wait(self._bus, lambda ns: _requester_next(self._live(), ctypes.byref(reply), ns), None))

    def _live(self):
        if not self._handle:
            raise ValueError("the requester is closed")
        return self._handle


class Request(Message):
    """What a responder has received; data, key and properties are bytes.  It may be
    kept and answered later, once: .error is 0 if an answer is waited for."""

    __slots__ = ("topic", "error", "_request", "_responder")

    def reply(self, data, *, key=None, properties=None, type=0):
        """Raises Timeout if it is too late, Gone if nobody waits any more."""
        msg, keep = _fill(data, key, properties, type)
        _check(_responder_reply(self._responder._live(), ctypes.byref(self._request), ctypes.byref(msg)))

    def refuse(self, why):
        _check(_responder_refuse(self._responder._live(), ctypes.byref(self._request), why.encode()))


class Responder(_Handle):
    """Receives requests on a topic or pattern; iterate over it for them."""

    def __init__(self, bus, topic, *, start="latest", wait=None):
        options = ResponderOptions(size=ctypes.sizeof(ResponderOptions), from_=_word(_FROM, start, "start"),
                                   wait=_word(_WAIT, wait, "wait"))
        self._bus, self._handle = bus, c_void_p()
        _check_open(_responder_open(bus._live(), _c(topic), ctypes.byref(options), ctypes.byref(self._handle)))

    def close(self):
        if self._handle:
            _responder_close(self._handle)
            self._handle = c_void_p()

    def receive(self, timeout=None):
        """The next Request; raises Empty, Timeout, Ended, Lost, Moved."""
        request = CRequest()
        code = _wait(self._bus, lambda ns: _responder_receive(self._live(), ctypes.byref(request), ns), timeout)
        if code in (EOVERRUN, EEVICTED):
            raise Lost(code, request.msg)
        if code == EMOVED:
            raise Moved(code, request.msg)
        _check(code)
        out = _make(Request(), request.msg, bytes)
        out.topic, out.error, out._request, out._responder = os.fsdecode(request.topic), request.error, request, self
        return out

    @property
    def stats(self):
        out = ResponderStats()
        _responder_stats(self._live(), ctypes.byref(out))
        return {name: getattr(out, name) for name, _ in out._fields_}

    def __iter__(self):
        while True:
            try:
                request = self.receive()
            except Ended:
                return
            yield request

    def _live(self):
        if not self._handle:
            raise ValueError("the responder is closed")
        return self._handle
