# SPDX-License-Identifier: MIT
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import traceback

import shmq

DIR = sys.argv[1]
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def raises(kind, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def scene(name, **options):
    bus = shmq.Bus("py")
    bus.create(name, exist_ok=True, **options)
    return bus


@test
def structs_are_those_of_the_header():
    lines = ["#include <shmq.h>"]
    for struct in (shmq.BusOptions, shmq.TopicOptions, shmq.TopicStats, shmq.TopicInfo, shmq.PubOptions, shmq.SubOptions, shmq.Msg,
                   shmq.PubStats, shmq.SubStats, shmq.RequesterOptions, shmq.Reply, shmq.RequesterStats,
                   shmq.ResponderOptions, shmq.CRequest, shmq.ResponderStats):
        c = f"struct {struct._c_name_}"
        lines.append(f'_Static_assert(sizeof({c}) == {shmq.ctypes.sizeof(struct)}, "{c}");')
        for field, _ in struct._fields_:
            offset = getattr(struct, field).offset
            lines.append(f'_Static_assert(offsetof({c}, {field.rstrip("_")}) == {offset}, "{c}.{field}");')
    for name in ("EFULL", "EEMPTY", "ETIMEOUT", "EOVERRUN", "EEVICTED", "EENDED", "EEXISTS", "EBUFFER", "FORCE",
                 "ANY_PARTITION", "TOPIC_TAG", "TOPIC_TIME", "TOPIC_SPIN_ONLY", "SUB_END_WITH_PUBLISHERS",
                 "SUB_OBSERVE", "SUB_RING_ONLY", "SUB_CONFLATE", "SUB_IN_PLACE", "EMOVED", "EPEERDEAD", "ENOBODY", "EOPTION",
                 "EREFUSED", "REPLIED", "REFUSED", "GONE", "TIMED_OUT", "LATE", "NAME_MAX"):
        lines.append(f'_Static_assert((long long)SHMQ_{name} == {getattr(shmq, name)}, "{name}");')
    for words, prefix in ((shmq._MODE, ""), (shmq._POLICY, ""), (shmq._FROM, "FROM_"), (shmq._WAIT, "WAIT_"),
                          (shmq._LOG, "LOG_"), (shmq._SYNC, "SYNC_"), (shmq._CONFIRM, "")):
        for word, value in words.items():
            c = f"SHMQ_{prefix}{word.upper().replace('-', '_')}"
            lines.append(f'_Static_assert({c} == {value}, "{c}");')
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run(compiler + ["-std=gnu11", "-Iinclude", "-fsyntax-only", "-xc", "-"],
                   input="\n".join(lines).encode(), check=True)


@test
def of_a_topic_that_moved_it_says_where_to_go_on():
    with scene("moved") as bus, bus.publisher("moved") as pub, bus.subscriber("moved") as sub:
        pub.publish(b"one")
        subprocess.run([os.path.join(os.path.dirname(os.environ["SHMQ_LIBRARY"]), "shmq"), "move", "--bus", "py",
                        "moved"], check=True, stdout=subprocess.DEVNULL)
        assert sub.receive(timeout=60, copy=True).data == b"one"
        moved = raises(shmq.Moved, sub.receive, timeout=60)
        assert (moved.seq, moved.partition, moved.code) == (1, 0, shmq.EMOVED)
        raises(shmq.Error, pub.publish, b"refused")
        pub.close()
        with bus.publisher("moved") as fresh, bus.subscriber("moved", start="seq", seq=moved.seq) as on:
            fresh.publish(b"two")
            message = on.receive(timeout=60, copy=True)
            assert (message.data, message.seq) == (b"two", 1)


@test
def of_each_key_the_newest_is_received():
    with scene("newest") as bus, bus.subscriber("newest", conflate=True) as sub, bus.publisher("newest") as pub:
        for i in range(30):
            pub.publish(b"%d" % i, key=b"%d" % (i % 3))
        assert [bytes(sub.receive(timeout=60).data) for _ in range(3)] == [b"27", b"28", b"29"]
        raises(shmq.Empty, sub.receive, timeout=0)
        assert sub.stats["conflated"] == 27 and sub.stats["received"] == 3


def answer(bus, then):
    """A thread that answers one request after the other."""
    def run():
        with bus.responder("ask") as responder:
            ready.set()
            for act in then:
                act(responder.receive(timeout=60))
    ready = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    return thread


@test
def a_request_has_its_outcome():
    with scene("ask", mode="shared") as bus, shmq.Bus("py") as other, bus.requester("ask", max_reply_bytes=1000) as r:
        raises(shmq.Nobody, r.request, b"x", timeout=0)
        thread = answer(other, [lambda q: q.reply(q.data.upper(), key=q.key, type=q.type + 1),
                                lambda q: q.refuse("no " + q.data.decode()), lambda q: None])
        reply = r.request(b"abc", key="k", type=3, timeout=None)
        assert (reply.data, reply.key, reply.type) == (b"ABC", b"k", 4)
        assert raises(shmq.Refused, r.request, b"way", timeout=60).why == "no way"
        raises(shmq.Gone, r.request, b"y", timeout=60)
        thread.join()
        assert r.stats["replied"] == 1 and r.stats["refused"] == 1 and r.stats["gone"] == 1


@test
def who_answers_too_late_is_told():
    with scene("ask", mode="shared") as bus, shmq.Bus("py") as other, other.responder("ask") as responder:
        with bus.requester("ask") as r, bus.publisher("ask") as pub:
            raises(shmq.Timeout, r.request, b"x", timeout=0.05)
            request = responder.receive(timeout=60)
            assert (request.data, request.topic, request.error) == (b"x", "ask", 0)
            raises(shmq.Timeout, request.reply, b"late")
            pub.publish(b"plain")
            request = responder.receive(timeout=60)
            assert request.data == b"plain" and request.error
            raises(shmq.Error, request.reply, b"nobody asked")
        assert responder.stats["late"] == 1


@test
def a_message_is_looked_at_without_a_copy():
    with scene("views") as bus, bus.subscriber("views") as sub, bus.publisher("views") as pub:
        assert pub.publish(b"hello", type=7) == (0, 0)
        message = sub.receive(timeout=60)
        assert isinstance(message.data, memoryview) and message.data.readonly
        assert message.data == b"hello" and message.seq == 0 and message.type == 7
        assert message.key is None and message.properties is None
        with open("/proc/self/maps") as maps:
            ranges = [line.split(None, 1) for line in maps]
        address = sub._msg.data
        mapped = [rest for where, rest in ranges
                  if int(where.split("-")[0], 16) <= address < int(where.split("-")[1], 16)]
        assert mapped and mapped[0].startswith("r--s"), mapped  # shared, and read-only
        raises(TypeError, message.data.__setitem__, 0, 1)


@test
def key_properties_and_empty_messages_arrive():
    with scene("keys", max_message_bytes=65536) as bus, bus.subscriber("keys") as sub, \
            bus.publisher("keys") as pub:
        pub.publish(bytearray(b"x" * 5000), key="AAPL", properties=memoryview(b"a=1"))
        pub.publish(b"")
        message = sub.receive(timeout=60)
        assert message.data == b"x" * 5000 and message.key == b"AAPL" and message.properties == b"a=1"
        message = sub.receive(timeout=60)
        assert message.data == b"" and message.key is None


@test
def the_next_call_ends_a_view():
    with scene("ends") as bus, bus.subscriber("ends") as sub, bus.publisher("ends") as pub:
        for n in range(3):
            pub.publish(b"%d" % n)
        first = sub.receive(timeout=60)
        part = first.data[:1]
        raises(BufferError, sub.receive, timeout=60)
        raises(ValueError, bytes, first.data)  # it was released
        raises(BufferError, sub.close)
        assert part == b"0"
        part.release()
        second = sub.receive(timeout=60)
        assert second.data == b"1"
        third = sub.receive(timeout=60, copy=True)
        assert third.data == b"2" and isinstance(third.data, bytes)
        sub.release()
        assert third.data == b"2"


@test
def what_is_claimed_is_written_in_place():
    with scene("claims", max_message_bytes=1 << 20) as bus, bus.subscriber("claims") as sub, \
            bus.publisher("claims") as pub:
        view = pub.claim(1 << 20)
        view[:4] = b"head"
        view[-4:] = b"tail"
        pub.commit(type=3)
        raises(ValueError, lambda: view[0])
        part = pub.claim(10)[2:4]
        raises(BufferError, pub.commit)
        raises(BufferError, pub.abort)
        raises(BufferError, pub.close)
        part.release()
        pub.abort()
        message = sub.receive(timeout=60)
        assert len(message.data) == 1 << 20 and message.data[:4] == b"head" and message.data[-4:] == b"tail"
        assert message.type == 3
        pub.claim(10)
        pub.abort()
        assert pub.stats["sent"] == 1
        del message


@test
def a_handle_that_is_forgotten_is_closed_but_not_before_its_views():
    bus = scene("forgotten")
    bus.publisher("forgotten").publish(b"first")
    pub = bus.publisher("forgotten")  # there is one at a time
    sub = bus.subscriber("forgotten")
    del sub
    for n in range(20000):  # more than there is room for: nobody is waited for
        pub.publish(b"next")
    message = bus.subscriber("forgotten", start="oldest").receive(timeout=60)
    data, view = message.data, pub.claim(16)
    part = data[1:]
    del message, pub
    raises(BufferError, bus.close)
    part.release()
    bus.close()
    raises(ValueError, bytes, data)  # released: nobody looks at what is not mapped any more
    raises(ValueError, view.__setitem__, 0, 1)


@test
def nothing_is_lost_silently():
    with scene("lossy", policy="lossy", depth=1024) as bus, bus.subscriber("lossy") as sub, \
            bus.publisher("lossy") as pub:
        for n in range(5000):
            pub.publish(b"%d" % n)
        lost = raises(shmq.Lost, sub.receive, timeout=60)
        assert lost.name == "SHMQ_EOVERRUN" and not lost.is_bound
        received, last = 0, None
        try:
            while True:
                message = sub.receive(timeout=0, copy=True)
                received, last = received + 1, message.data
        except shmq.Empty:
            pass
        assert lost.lost + received == 5000 and last == b"4999"
        assert sub.stats["lost"] == lost.lost and sub.stats["received"] == received


@test
def a_torn_view_is_told():
    with scene("torn", policy="lossy", depth=1024) as bus, bus.subscriber("torn") as sub, \
            bus.publisher("torn") as pub:
        pub.publish(b"one")
        sub.receive(timeout=60)
        assert sub.check()
        for n in range(3000):
            pub.publish(b"%d" % n)
        assert not sub.check()


@test
def waiting_ends_as_it_was_asked_to():
    with scene("waits") as bus, bus.subscriber("waits") as sub, bus.publisher("waits") as pub:
        raises(shmq.Empty, sub.receive, timeout=0)
        raises(shmq.Timeout, sub.receive, timeout=0.01)
        raises(shmq.Timeout, sub.receive, timeout=0.25)
        pub.publish("text")
        raises(shmq.Timeout, pub.flush, timeout=0.01)
        sub.receive(timeout=60)
        sub.release()
        pub.flush(timeout=60)
        pub.wait_subscribers(1, timeout=60)
        raises(shmq.Timeout, pub.wait_subscribers, 2, timeout=0.01)


def interrupts(is_waiting, signal_number=signal.SIGINT):
    """A thread that sends a signal to the process once it waits; and what to set when that may be."""
    began = threading.Event()

    def run():
        began.wait()
        while not is_waiting():
            time.sleep(0.001)
        os.kill(os.getpid(), signal_number)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, began


def is_interrupted(is_waiting, call, *arguments, **named):
    thread, began = interrupts(is_waiting)
    raises(KeyboardInterrupt, lambda: (began.set(), call(*arguments, **named)))
    thread.join()


def asleep(*subs):
    """Whether each of them went to sleep from now on."""
    before = [sub.stats["sleeps"] for sub in subs]
    return lambda: all(sub.stats["sleeps"] > n for sub, n in zip(subs, before))


def fill(bus, topic):
    """A publisher of a topic of which a subscriber reads nothing, and no room is left."""
    pub, sub = bus.publisher(topic), bus.subscriber(topic)
    for n in range(1024):
        pub.publish(b"%d" % n)
    return pub, sub


@test
def ctrl_c_ends_a_publish_that_waits_and_nothing_is_published_by_it():
    with scene("full", depth=1024) as bus:
        pub, sub = fill(bus, "full")
        is_interrupted(lambda: pub.stats["blocked"] >= 1, pub.publish, b"not")
        view = pub.claim(3)
        view[:] = b"yes"
        is_interrupted(lambda: pub.stats["blocked"] >= 2, pub.commit)
        assert bytes(sub.receive(timeout=0).data) == b"0"
        sub.release()
        pub.commit()
        assert [bytes(sub.receive(timeout=60).data) for _ in range(1024)][-1] == b"yes"
        raises(shmq.Empty, sub.receive, timeout=0)


@test
def ctrl_c_ends_each_call_that_waits():
    with scene("idle") as bus, scene("asked", depth=1024, mode="shared", max_message_bytes=1000) as other:
        with bus.subscriber("idle") as sub, bus.publisher("idle") as pub, bus.responder("idle") as responder:
            is_interrupted(asleep(sub), sub.receive)
            is_interrupted(asleep(sub), sub.receive, copy=True)
            raises(shmq.Timeout, sub.receive, timeout=0.01)
            pub.publish(b"x")
            for call in (pub.flush, lambda: pub.wait_subscribers(9), lambda: responder.receive() and responder.receive()):
                is_interrupted(lambda: True, call)
        pub, sub = fill(other, "asked")
        with other.requester("asked") as requester:
            info = shmq.TopicInfo()
            is_interrupted(lambda: shmq._pub_topic(pub._handle, info) == 0 and info.stats.blocked,
                           requester.request, b"x", timeout=None)
            assert requester.stats["sent"] == 0


@test
def who_waits_elsewhere_does_not_hear_of_a_signal():
    with scene("elsewhere") as bus, bus.subscriber("elsewhere") as one, bus.subscriber("elsewhere") as two:
        got = []
        are_asleep = asleep(one, two)
        thread = threading.Thread(target=lambda: got.append(one.receive(timeout=60, copy=True).data))
        thread.start()
        is_interrupted(are_asleep, two.receive)
        bus.publisher("elsewhere").publish(b"x")
        thread.join()
        assert got == [b"x"]


@test
def a_handler_may_wait_or_close_what_was_waited_on():
    bus = scene("handler")
    sub, inner = bus.subscriber("handler"), bus.subscriber("handler")
    before, heard = signal.getsignal(signal.SIGUSR1), []

    def handle(number, frame):
        heard.append(raises(shmq.Timeout, inner.receive, timeout=0.01))
        if len(heard) == 2:
            bus.close()

    signal.signal(signal.SIGUSR1, handle)
    sent = [interrupts(lambda n=n: len(heard) == n and sub.stats["sleeps"] > n, signal.SIGUSR1) for n in range(2)]
    raises(ValueError, lambda: ([began.set() for _, began in sent], sub.receive()))
    for thread, _ in sent:
        thread.join()
    signal.signal(signal.SIGUSR1, before)
    assert len(heard) == 2


@test
def whose_descriptor_python_writes_signals_to_hears_of_them():
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write)
    with scene("loop") as bus, bus.subscriber("loop") as sub:
        is_interrupted(asleep(sub), sub.receive)
        assert os.read(read, 9) == bytes([signal.SIGINT])
    assert signal.set_wakeup_fd(before) == write
    os.close(read)
    os.close(write)


@test
def who_waits_does_not_look_for_signals():
    with scene("asleep") as bus, bus.subscriber("asleep") as sub:
        calls, receive = [], shmq._receive
        shmq._receive = lambda handle, msg, ns: calls.append(ns) or receive(handle, msg, ns)
        raises(shmq.Timeout, sub.receive, timeout=0.35)
        shmq._receive = receive
        assert len(calls) == 2 and calls[0] == 0 and calls[1] > 0, calls


@test
def a_tag_that_cannot_be_published_is_refused():
    with scene("untagged") as bus, bus.publisher("untagged") as pub:
        error = raises(shmq.Error, pub.publish, b"x", tag=1)
        assert error.name == "SHMQ_EOPTION" and "tag" in str(error)
        pub.claim(1)
        assert raises(shmq.Error, pub.commit, tag=1).name == "SHMQ_EOPTION"
        pub.abort()
    with scene("tagged", tag=True) as bus, bus.subscriber("tagged") as sub, bus.publisher("tagged") as pub:
        pub.publish(b"x", tag=7)
        assert sub.receive(timeout=60).tag == 7


@test
def a_pattern_says_of_what_topic_and_a_selector_that_something_came():
    with scene("md.x") as bus, bus.subscriber("md.#") as sub, selectors.DefaultSelector() as selector:
        raises(shmq.Empty, sub.receive, timeout=0)
        selector.register(sub, selectors.EVENT_READ)
        bus.publisher("md.x").publish(b"x")
        assert selector.select(60)
        assert bytes(sub.receive(timeout=60).data) == b"x" and sub.topic == "md.x"


@test
def a_subscriber_is_iterated_over_until_the_stream_ends():
    with scene("stream") as bus:
        with bus.subscriber("stream", end_with_publishers=True) as sub:
            with bus.publisher("stream") as pub:
                for n in range(100):
                    pub.publish(b"%d" % n)
            assert [int(bytes(message.data)) for message in sub] == list(range(100))


@test
def errors_say_what_was_wrong():
    with scene("errors") as bus:
        error = raises(shmq.Error, bus.subscriber, "no.such")
        assert error.name == "SHMQ_ENOTOPIC" and "no.such" in str(error)
        assert raises(shmq.Error, bus.create, "errors").name == "SHMQ_EEXISTS"
        raises(ValueError, bus.create, "x", policy="none")
        with bus.publisher("errors") as pub:
            assert raises(shmq.Error, pub.publish, b"x" * 1000).name == "SHMQ_ETOOBIG"
            for wrong in ({"type": 65536}, {"type": -1}, {"tag": 1 << 64}, {"partition": 1 << 32}):
                assert next(iter(wrong)) in str(raises(ValueError, pub.publish, b"x", **wrong))
            assert raises(shmq.Error, pub.wait_confirm, 0, 0, timeout=0).name == "SHMQ_EOPTION"
        raises(ValueError, pub.publish, b"x")
    raises(ValueError, bus.publisher, "errors")
    assert raises(shmq.Error, shmq.Bus, "other", start=False).name == "SHMQ_ENODAEMON"
    assert shmq.version().count(".") == 2


@test
def what_is_confirmed_is_in_the_log_from_a_time_on():
    with scene("kept", log="block", sync="every", time=True, segment_bytes=1 << 20, retain=3600) as bus:
        with bus.publisher("kept") as pub:
            pub.publish(b"before")
            partition, seq = pub.publish(b"after")
            pub.wait_confirm(partition, seq, timeout=60)
            pub.wait_confirm(partition, seq, "written", timeout=0)
            raises(shmq.Timeout, pub.wait_confirm, partition, seq + 1, timeout=0.1)
            raises(ValueError, pub.wait_confirm, partition, seq, "sent")
        with bus.subscriber("kept", start="oldest") as sub:
            then = [sub.receive(timeout=60, copy=True).ts_ns for _ in range(2)][1]
        with bus.subscriber("kept", start="time", ts_ns=then, cursor="c") as sub:
            assert sub.receive(timeout=60, copy=True).ts_ns == then
            sub.store_cursor()
        bus.remove("kept")
        raises(ValueError, bus.create, "kept", log="block", sync="often")


@test
def closing_the_bus_closes_its_handles():
    bus = scene("closing")
    sub, pub = bus.subscriber("closing"), bus.publisher("closing")
    pub.publish(b"x")
    sub.receive(timeout=60)
    bus.close()
    raises(ValueError, sub.receive, timeout=0)
    raises(ValueError, pub.publish, b"x")
    bus.close()


keeper = shmq.Bus("py")
print(f"1..{len(TESTS)}")
failed = 0
for number, function in enumerate(TESTS, 1):
    try:
        function()
        print(f"ok {number} - {function.__name__}", flush=True)
    except Exception:
        failed = 1
        traceback.print_exc()
        print(f"not ok {number} - {function.__name__}", flush=True)
subprocess.run([os.path.join(os.environ["SHMQ_BUILD"], "shmq"), "--bus", "py", "stop", "--force"], check=True)
keeper.close()
sys.exit(failed)
