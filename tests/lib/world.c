/* SPDX-License-Identifier: MIT */
#include "world.h"

#include "futex.h"
#include "shmem.h"
#include "tap.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void *map(int fd, uint64_t off, size_t bytes)
{
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)off);

	CHECK(mem != MAP_FAILED);
	return mem;
}

static void add(struct world *w, enum watch_kind kind, unsigned slab, uint64_t off, uint64_t bytes)
{
	struct world_range *r = &w->range[w->ranges];
	unsigned i;

	bytes = (bytes + LAY_PAGE - 1) / LAY_PAGE * LAY_PAGE;
	for (i = 0; i < w->ranges; i++)
		if (w->range[i].slab == slab && w->range[i].off == off &&
		    w->range[i].bytes >= bytes)
			return;
	w->ranges++;
	CHECK_LE(w->ranges, sizeof(w->range) / sizeof(w->range[0]));
	*r = (struct world_range){ .slab = slab, .off = off, .bytes = bytes };
	r->below = map(w->fd[slab], off, bytes);
	r->above = map(shmq__slabs_fd(w->f->slabs, slab, SHMQ__SLAB_WRITE), off, bytes);
	watch_add(&w->watch, kind, r->below, bytes, off, kind == WATCH_RING ? &w->f->geo : NULL);
}

/* Whatever there is by now. */
static void add_all(struct world *w)
{
	uint64_t bytes = 0;
	unsigned i;

	add(w, WATCH_REGISTRY, FAKE_REGISTRY, 0, LAY_PAGE);
	add(w, WATCH_REGISTRY, FAKE_REGISTRY, LAY_CLIENTS_OFF, 2 * LAY_PAGE);
	add(w, WATCH_REGISTRY, FAKE_REGISTRY, LAY_SLABS_OFF, LAY_PAGE);
	add(w, WATCH_REGISTRY, FAKE_REGISTRY, LAY_ARENAS_OFF, LAY_PAGE);
	add(w, WATCH_REGISTRY, FAKE_REGISTRY, LAY_TOPICS_OFF, LAY_PAGE);
	add(w, WATCH_REGISTRY, FAKE_REGISTRY, LAY_HEAP_OFF, LAY_PAGE);
	add(w, WATCH_REGISTRY, FAKE_REGISTRY, LAY_REF_OFF(w->f->rec->roster), LAY_PAGE);
	add(w, WATCH_BELLS, FAKE_BELLS, 0, w->f->geo.partitions * sizeof(struct lay_bells));
	add(w, WATCH_ENTRIES, FAKE_ENTRIES, 0, LAY_PAGE);
	CHECK_LE(w->f->entries, LAY_PAGE);
	for (i = 0; i < w->f->geo.partitions; i++)
		add(w, WATCH_RING, FAKE_RINGS, i * w->f->geo.ring_bytes, w->f->geo.ring_bytes);
	for (i = 0; i < w->f->arenas; i++) {
		const struct lay_arena *a = shmq__slabs_arena(w->f->slabs, i);

		bytes = a->bytes;
		add(w, WATCH_ARENA, FAKE_ARENAS, LAY_REF_OFF(a->mem), bytes);
	}
}

struct world *world_new(const struct fake_options *options)
{
	struct world *w = calloc(1, sizeof(*w));
	unsigned id;

	CHECK(w);
	w->s = standin_new(options);
	w->f = standin_fake(w->s);
	for (id = 0; id < FAKE_SLABS; id++) {
		uint64_t bytes = id == FAKE_REGISTRY ? LAY_REGISTRY_BYTES :
						       shmq__slabs_slab(w->f->slabs, id)->bytes;

		CHECK_GE(w->fd[id] = shmq__shmem_create("shmq-below", bytes, 12), 0);
	}
	return w;
}

void world_free(struct world *w)
{
	unsigned i;

	standin_free(w->s);
	watch_free(&w->watch);
	for (i = 0; i < w->ranges; i++) {
		munmap(w->range[i].below, w->range[i].bytes);
		munmap(w->range[i].above, w->range[i].bytes);
	}
	for (i = 0; i < FAKE_SLABS; i++)
		close(w->fd[i]);
	free(w);
}

/* The descriptors of slabs come last, each with its line in the reply. */
static void give_below(struct standin_answer *a, void *arg)
{
	struct world *w = arg;
	unsigned i, first = a->fd_count - a->reply.fd_count;

	for (i = 0; i < a->reply.fd_count; i++) {
		int fd = w->fd[a->reply.fd[i].slab];

		fd = a->reply.fd[i].writable ? shmq__shmem_reopen_writable(fd) :
					       shmq__shmem_reopen_readonly(fd);
		CHECK_GE(fd, 0);
		close(a->fds[first + i]);
		a->fds[first + i] = fd;
	}
	add_all(w);
	world_copy_down(w);
}

static void change_answers(struct world *w, standin_change *fn)
{
	static const enum proto_op ops[] = { PROTO_HELLO, PROTO_OPEN, PROTO_CLOSE, PROTO_GOODBYE };

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		standin_change_answers(w->s, ops[i], fn, w);
}

void world_open_below(struct world *w)
{
	add_all(w);
	world_copy_down(w);
	change_answers(w, give_below);
}

void world_close_below(struct world *w)
{
	change_answers(w, NULL);
}

void world_answer(struct world *w)
{
	world_open_below(w);
	standin_answer_one(w->s);
	world_close_below(w);
}

int world_look(struct world *w)
{
	return watch_look(&w->watch);
}

void world_copy_up(struct world *w)
{
	unsigned i;

	for (i = 0; i < w->ranges; i++)
		memcpy(w->range[i].above, w->watch.range[i].seen, w->range[i].bytes);
}

void world_copy_down(struct world *w)
{
	unsigned i;
	uint32_t p;

	for (i = 0; i < w->ranges; i++) {
		memcpy(w->range[i].below, w->range[i].above, w->range[i].bytes);
		memcpy(w->watch.range[i].seen, w->range[i].above, w->range[i].bytes);
	}
	for (i = 0; i < w->ranges; i++) {
		struct lay_bells *bells = (struct lay_bells *)(void *)w->range[i].below;

		for (p = 0; w->range[i].slab == FAKE_BELLS && p < w->f->geo.partitions; p++) {
			shmq__futex_wake(&bells[p].data.word);
			shmq__futex_wake(&bells[p].credit.word);
		}
	}
}
