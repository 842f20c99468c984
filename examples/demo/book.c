/* SPDX-License-Identifier: MIT
 *
 * book: rebuilds the order book from the order flow, message by message, and
 * holds the result against the publisher's summary at the end.  It gates: the
 * flow waits for it rather than lose a message.
 */
#include "common.h"
#include "orderbook.h"

#include <errno.h>
#include <string.h>

enum { POLL_MAX = 256 };

struct reader {
	struct book book;
	struct demo_tally tally;
	struct order_end end;
	uint64_t n; /* of the next message */
	int ended;
};

static const char *on_add(struct reader *reader, const void *data)
{
	return book_add(&reader->book, data);
}

static const char *on_cancel(struct reader *reader, const void *data)
{
	return book_cancel(&reader->book, data);
}

static const char *on_execute(struct reader *reader, const void *data)
{
	return book_execute(&reader->book, data);
}

static const char *on_end(struct reader *reader, const void *data)
{
	reader->end = *(const struct order_end *)data;
	reader->ended = 1;
	return NULL;
}

static const struct {
	size_t len;
	const char *(*apply)(struct reader *reader, const void *data);
} kinds[] = {
	[ORDER_ADD] = { sizeof(struct order_add), on_add },
	[ORDER_CANCEL] = { sizeof(struct order_cancel), on_cancel },
	[ORDER_EXECUTE] = { sizeof(struct order_execute), on_execute },
	[ORDER_END] = { sizeof(struct order_end), on_end },
};

static int on_message(void *arg, const struct shmq_msg *msg)
{
	struct reader *reader = arg;
	const char *wrong = NULL;
	uint64_t n;

	if (msg->type >= COUNT_OF(kinds) || !kinds[msg->type].apply ||
	    msg->len != kinds[msg->type].len)
		demo_die(NULL, 0, "seq %llu: no message of the flow", (unsigned long long)msg->seq);
	memcpy(&n, msg->data, sizeof(n));
	if (n != reader->n)
		demo_die(NULL, 0, "seq %llu: message %llu came where %llu was next",
			 (unsigned long long)msg->seq, (unsigned long long)n,
			 (unsigned long long)reader->n);
	reader->n++;
	demo_count(&reader->tally, msg);
	wrong = kinds[msg->type].apply(reader, msg->data);
	if (wrong)
		demo_die(NULL, 0, "message %llu: %s", (unsigned long long)n, wrong);
	return 0;
}

static void read_all(shmq_bus *bus, shmq_sub *sub, struct reader *reader)
{
	for (;;) {
		ssize_t n = shmq_poll(sub, on_message, reader, POLL_MAX, SHMQ_FOREVER);

		if (n == SHMQ_EENDED)
			return;
		if (n < 0)
			demo_die(bus, n, "reading \"%s\"", TOPIC_ORDERS);
	}
}

static void check_book(const struct reader *reader, const char *name)
{
	struct order_end mine = book_summary(&reader->book, reader->n - 1, reader->end.seed);
	FILE *file;

	if (!reader->ended)
		demo_die(NULL, 0, "the flow ended without its summary");
	if (memcmp(&mine, &reader->end, sizeof(mine)) != 0)
		demo_die(NULL, 0, "the book differs: digest %016llx here, %016llx at the publisher",
			 (unsigned long long)mine.digest, (unsigned long long)reader->end.digest);
	file = demo_file(name, "book", "w");
	if (!file ||
	    fprintf(file, "%llu live, digest %016llx\n", (unsigned long long)mine.live,
		    (unsigned long long)mine.digest) < 0 ||
	    fclose(file))
		demo_die(NULL, -errno, "writing the digest");
}

int main(int argc, char **argv)
{
	struct demo_options options = { .name = "book" };
	static struct reader state;
	struct reader *reader = &state;
	shmq_bus *bus;
	shmq_sub *sub;

	demo_init(argc, argv, &options);
	book_init(&reader->book);
	bus = demo_bus_open(SHMQ_START_NEVER);
	sub = demo_sub_open(bus, TOPIC_ORDERS, SHMQ_FROM_LATEST);
	read_all(bus, sub, reader);
	check_book(reader, options.name);
	demo_report_sub(bus, sub, TOPIC_ORDERS, &reader->tally, NULL);
	shmq_bus_close(bus);
	return 0;
}
