# SPDX-License-Identifier: MIT
#
# Python publishes and subscribes; a message is looked at where it lies in shared
# memory, as a memoryview, and none of its bytes is copied.
#
#   PYTHONPATH=/usr/local/lib/python3/dist-packages python3 python_pubsub.py
import array

import shmq

with shmq.Bus() as bus:
    bus.create("samples", max_message_bytes=1 << 20, exist_ok=True)
    with bus.subscriber("samples") as sub, bus.publisher("samples") as pub:
        pub.publish(array.array("d", range(100_000)), key="sensor-1")

        view = pub.claim(8 * 1000)  # writes where subscribers read
        numbers = view.cast("d")
        for i in range(1000):
            numbers[i] = i / 2
        numbers.release()
        pub.commit()

        for _ in range(2):
            message = sub.receive(timeout=10)
            with message.data.cast("d") as numbers:
                print(f"seq {message.seq}: {len(numbers)} numbers, the last is {numbers[-1]}")
    bus.remove("samples")
