/* SPDX-License-Identifier: MIT
 *
 * Concurrency Kit's single-producer single-consumer ring, one from each
 * sender to each receiver, in memory that both map.
 *
 * A ring carries pointers; here they are offsets, of cells that lie beside
 * the ring and are used in turn.  There is one cell more than the ring
 * carries: a sender that finds room knows that the receiver has begun with
 * the message after the one its next cell held, and is done with that.  (x86
 * does not move the loads of a copy past the store that ends it.)
 *
 * DPDK's rte_ring would do the same.  Its packages are two hundred, and its
 * processes share memory only with huge pages set aside.
 */
#include "common.h"

#include <ck_ring.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE 64

struct cell {
	size_t len;
	char bytes[];
};

struct lane { /* at the start of its mapping */
	_Alignas(LINE) ck_ring_t ring;
	_Alignas(LINE) ck_ring_buffer_t slots[];
	/* cells follow, each on lines of its own */
};

struct mapped {
	struct lane *lane;
	size_t bytes;
	int fd;
	unsigned at; /* senders: the cell that comes next */
};

struct end {
	struct peer_channel channel;
	int sends;
	unsigned n, next, polls;
	unsigned depth;
	size_t cell_bytes, cells_off;
	struct mapped lanes[];
};

static size_t lines(size_t bytes)
{
	return (bytes + LINE - 1) & ~(size_t)(LINE - 1);
}

static unsigned lane_of(const struct peer_channel *channel, unsigned sender, unsigned receiver)
{
	return receiver * channel->senders + sender;
}

static struct end *make_end(const struct peer_channel *channel, int sends, unsigned n)
{
	struct end *e = calloc(1, sizeof(*e) + n * sizeof(e->lanes[0]));

	if (!e) {
		peer_error("out of memory");
		return NULL;
	}
	e->channel = *channel;
	e->sends = sends;
	e->n = n;
	e->depth = peer_depth(channel, 8, 1024);
	e->cell_bytes = lines(sizeof(struct cell) + channel->bytes);
	e->cells_off = lines(sizeof(struct lane) + e->depth * sizeof(ck_ring_buffer_t));
	return e;
}

static int map_lane(struct end *e, struct mapped *m)
{
	m->bytes = e->cells_off + e->depth * e->cell_bytes;
	if (m->fd < 0 || (!e->sends && ftruncate(m->fd, (off_t)m->bytes)))
		return peer_error("making a ring: %s", strerror(errno));
	m->lane = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, m->fd, 0);
	if (m->lane == MAP_FAILED)
		return peer_error("mapping a ring: %s", strerror(errno));
	return 0;
}

static void close_end(void *end)
{
	struct end *e = end;
	unsigned i;

	for (i = 0; i < e->n; i++) {
		munmap(e->lanes[i].lane, e->lanes[i].bytes);
		close(e->lanes[i].fd);
		if (!e->sends)
			peer_withdraw(&e->channel, lane_of(&e->channel, i, e->channel.index));
	}
	free(e);
}

static void *open_send(const struct peer_channel *channel)
{
	struct end *e = make_end(channel, 1, channel->receivers);
	unsigned i;

	for (i = 0; e && i < e->n; i++) {
		e->lanes[i].fd = peer_fetch(channel, lane_of(channel, channel->index, i), O_RDWR);
		if (map_lane(e, &e->lanes[i]))
			return NULL;
	}
	return e;
}

static void *open_recv(const struct peer_channel *channel)
{
	struct end *e = make_end(channel, 0, channel->senders);
	unsigned i;

	for (i = 0; e && i < e->n; i++) {
		struct mapped *m = &e->lanes[i];

		m->fd = memfd_create(channel->name, MFD_CLOEXEC);
		if (map_lane(e, m))
			return NULL;
		ck_ring_init(&m->lane->ring, e->depth);
		if (peer_offer(channel, lane_of(channel, i, channel->index), m->fd))
			return NULL;
	}
	return e;
}

/* The cell that comes next, once there is room in the ring. */
static struct cell *next_cell(struct end *e, const struct mapped *m)
{
	while (ck_ring_size(&m->lane->ring) == e->depth - 1)
		peer_relax(&e->polls);
	return (struct cell *)((char *)m->lane + e->cells_off + m->at * e->cell_bytes);
}

static void enqueue(struct end *e, struct mapped *m, const struct cell *cell)
{
	void *off = (void *)(uintptr_t)((const char *)cell - (const char *)m->lane);

	ck_ring_enqueue_spsc(&m->lane->ring, m->lane->slots, off);
	m->at = (m->at + 1) % e->depth;
}

static void send_one(struct end *e, struct mapped *m, const void *data, size_t len)
{
	struct cell *cell = next_cell(e, m);

	cell->len = len;
	memcpy(cell->bytes, data, len);
	enqueue(e, m, cell);
}

static int send_all(void *end, const void *data, size_t len)
{
	struct end *e = end;
	unsigned i;

	for (i = 0; i < e->n; i++)
		send_one(e, &e->lanes[i], data, len);
	return 0;
}

/* In place: a cell of the first receiver's, of which the others get copies. */
static void *loan(void *end, size_t len)
{
	struct end *e = end;
	struct cell *cell = next_cell(e, &e->lanes[0]);

	cell->len = len;
	return cell->bytes;
}

static int publish(void *end, void *room)
{
	struct end *e = end;
	const struct cell *cell = (const struct cell *)((char *)room - sizeof(*cell));
	unsigned i;

	for (i = 1; i < e->n; i++)
		send_one(e, &e->lanes[i], cell->bytes, cell->len);
	enqueue(e, &e->lanes[0], cell);
	return 0;
}

/* The next message of any sender, which stays until the next one is taken. */
static const struct cell *take_cell(struct end *e)
{
	struct mapped *m;
	void *off;

	do {
		m = &e->lanes[e->next];
		if (++e->next == e->n)
			e->next = 0;
		if (ck_ring_dequeue_spsc(&m->lane->ring, m->lane->slots, &off))
			return (const struct cell *)((char *)m->lane + (uintptr_t)off);
		if (!e->next)
			peer_relax(&e->polls);
	} while (1);
}

static const char *version(void)
{
	return CK_VERSION;
}

static const void *take(void *end, size_t *len)
{
	const struct cell *cell = take_cell(end);

	*len = cell->len;
	return cell->bytes;
}

static void release(void *end, const void *message)
{
	(void)end;
	(void)message;
}

static ssize_t recv_any(void *end, void *buf, size_t capacity)
{
	const struct cell *cell = take_cell(end);

	if (cell->len > capacity)
		return peer_error("a message of %zu bytes is too long", cell->len);
	memcpy(buf, cell->bytes, cell->len);
	return (ssize_t)cell->len;
}

const struct peer bench_peer = {
	.name = "ck",
	.max_bytes = 1 << 30,
	.waits = PEER_SPIN,
	.fan_out = 64,
	.fan_in = 64,
	.version = version,
	.open_send = open_send,
	.open_recv = open_recv,
	.send = send_all,
	.recv = recv_any,
	.close = close_end,
	.loan = loan,
	.publish = publish,
	.take = take,
	.release = release,
};
