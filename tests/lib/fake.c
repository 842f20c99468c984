/* SPDX-License-Identifier: MIT */
#include "fake.h"

#include "proc.h"
#include "shmem.h"
#include "tap.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define TOPIC_ID 77
#define ROSTERS_OFF (LAY_HEAP_OFF + (UINT64_C(1) << 20))

/* ---- rings ------------------------------------------------------------- */

static void describe_topic(const struct fake_options *o, struct lay_topic *t)
{
	t->id = TOPIC_ID;
	t->depth = o->depth ? o->depth : FAKE_DEPTH;
	t->slot_bytes = o->slot_bytes ? o->slot_bytes : 64;
	t->partitions = o->partitions ? o->partitions : 1;
	t->flags = o->flags;
	t->inline_bytes = shmq__layout_inline_bytes(t->slot_bytes, t->flags);
	t->max_bytes = o->max_bytes ? o->max_bytes : t->inline_bytes;
	t->mode = (uint8_t)(o->mode ? o->mode : SHMQ_EXCLUSIVE);
	t->policy = (uint8_t)(o->policy ? o->policy : SHMQ_BLOCK);
	t->log = (uint8_t)o->log;
	t->stall = SHMQ_STALL_REPORT;
	t->wait = SHMQ_WAIT_ADAPTIVE;
	t->block_timeout_ns = SHMQ_FOREVER;
	t->evict_ns = INT64_C(100000000);
	t->page_shift = 12;
	t->arena_bytes = o->arena_bytes;
	t->ring_bytes = shmq__layout_ring_bytes(t->depth, t->slot_bytes, 12);
}

struct lay_geometry fake_geometry(const struct fake_options *options)
{
	struct lay_topic *t = calloc(1, sizeof(*t));
	struct lay_geometry geo;

	describe_topic(options, t);
	CHECK_OK(shmq__layout_geometry(t, &geo));
	free(t);
	return geo;
}

struct lay_ring *fake_ring(const struct lay_geometry *geo, uint64_t base_seq)
{
	char *mem = mmap(NULL, geo->ring_bytes + 2 * LAY_PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(mem != MAP_FAILED);
	CHECK_EQ(mprotect(mem, LAY_PAGE, PROT_NONE), 0);
	CHECK_EQ(mprotect(mem + LAY_PAGE + geo->ring_bytes, LAY_PAGE, PROT_NONE), 0);
	shmq__layout_init_ring(mem + LAY_PAGE, LAY_VERSION, geo, TOPIC_ID, 0, base_seq);
	return (struct lay_ring *)(void *)(mem + LAY_PAGE);
}

void fake_ring_free(struct lay_ring *ring, const struct lay_geometry *geo)
{
	munmap((char *)ring - LAY_PAGE, geo->ring_bytes + 2 * LAY_PAGE);
}

shmq_au64 *fake_ctrl(struct lay_ring *ring, const struct lay_geometry *geo, uint64_t seq)
{
	return &lay_slot_at(ring, geo, seq)->ctrl;
}

void fake_put(struct ring_writer *w, uint64_t seq, uint64_t value)
{
	struct lay_slot *s = lay_slot_at(w->mem, &w->geo, seq);

	s->len = sizeof(value);
	s->flags = 0;
	s->type = 0;
	memcpy((char *)s + w->geo.payload_off, &value, sizeof(value));
	ring_commit(w, s, seq);
}

uint64_t fake_get(const struct ring_reader *r)
{
	const struct lay_slot *s = lay_slot_at(r->mem, &r->geo, r->next);
	uint64_t value;

	memcpy(&value, (const char *)s + r->geo.payload_off, sizeof(value));
	return value;
}

void fake_publish(struct ring_writer *w, uint64_t value)
{
	CHECK_GT(seq_diff(w->limit, w->next), 0);
	fake_put(w, w->next, value);
	w->next++;
}

/* ---- the bus ------------------------------------------------------------- */

static void add_slab(struct fake *f, unsigned id, enum lay_slab_kind kind, uint64_t bytes)
{
	int fd = shmq__shmem_create("shmq-test", bytes, 12);

	CHECK_GE(fd, 0);
	if (id == FAKE_REGISTRY) {
		struct lay_registry head = { .magic = LAY_MAGIC_REGISTRY, .version = LAY_VERSION };

		CHECK_EQ(pwrite(fd, &head, sizeof(head), 0), sizeof(head));
	} else {
		struct lay_slab *rec = shmq__slabs_slab(f->slabs, id);

		rec->kind = kind;
		rec->page_shift = 12;
		rec->bytes = bytes;
	}
	CHECK_OK(shmq__slabs_add(f->slabs, id, fd, SHMQ__SLAB_WRITE));
	if (id != FAKE_REGISTRY)
		return;
	f->registry = shmq__slabs_registry(f->slabs);
	store_relaxed(&f->registry->slab_count, FAKE_SLABS);
	store_relaxed(&f->registry->topic_count, 1);
	store_relaxed(&f->registry->arena_count, 1);
}

static void add_rings(struct fake *f)
{
	uint32_t p;

	for (p = 0; p < f->geo.partitions; p++) {
		struct lay_partition *part = &f->partition[p];
		void *mem;

		part->ring = LAY_REF(FAKE_RINGS, p * f->geo.ring_bytes);
		part->bells = LAY_REF(FAKE_BELLS, (uint64_t)p * sizeof(struct lay_bells));
		part->base_seq = f->base_seq;
		store_relaxed(&part->log_written, f->base_seq);
		store_relaxed(&part->log_synced, f->base_seq);
		CHECK_OK(shmq__slabs_map(f->slabs, part->ring, f->geo.ring_bytes, SHMQ__SLAB_WRITE,
					 &mem));
		shmq__layout_init_ring(mem, LAY_VERSION, &f->geo, TOPIC_ID, p, f->base_seq);
		shmq__slabs_unmap(f->slabs, part->ring, f->geo.ring_bytes, mem);
	}
}

struct fake *fake_new(const struct fake_options *options)
{
	static const struct fake_options plain;
	const struct fake_options *o = options ? options : &plain;
	struct fake *f = calloc(1, sizeof(*f));
	lay_ref array = LAY_REF(FAKE_REGISTRY, LAY_HEAP_OFF);

	CHECK_OK(shmq__slabs_create(&f->slabs));
	add_slab(f, FAKE_REGISTRY, LAY_SLAB_REGISTRY, LAY_REGISTRY_BYTES);
	add_slab(f, FAKE_BELLS, LAY_SLAB_BELL, LAY_BELL_SLAB_BYTES);
	add_slab(f, FAKE_ENTRIES, LAY_SLAB_ENTRY, LAY_ENTRY_SLAB_BYTES);
	add_slab(f, FAKE_RINGS, LAY_SLAB_RING, LAY_BULK_SLAB_BYTES);
	add_slab(f, FAKE_ARENAS, LAY_SLAB_ARENA, LAY_BULK_SLAB_BYTES);
	f->base_seq = o->base_seq;
	f->gen = 5000;
	f->rec = shmq__slabs_topic(f->slabs, 0);
	describe_topic(o, f->rec);
	snprintf(f->rec->name, sizeof(f->rec->name), "fake");
	CHECK_OK(shmq__layout_geometry(f->rec, &f->geo));
	f->rec->partition_array = array;
	f->partition = shmq__slabs_at(f->slabs, array, f->geo.partitions * sizeof(*f->partition));
	CHECK(f->partition);
	f->heap = ROSTERS_OFF;
	f->rec->roster = f->last_chunk = LAY_REF(FAKE_REGISTRY, f->heap);
	f->heap += sizeof(struct lay_roster);
	add_rings(f);
	store_release(&f->rec->state, LAY_TOPIC_LIVE);
	CHECK_OK(shmq__topic_attach(f->slabs, 0, TOPIC_ID, SHMQ__SLAB_WRITE, &f->topic));
	return f;
}

void fake_free(struct fake *f)
{
	shmq__topic_detach(f->topic);
	shmq__slabs_destroy(f->slabs);
	free(f);
}

struct shmq__topic *fake_attach_readonly(struct fake *f, struct shmq__slabs **slabs)
{
	struct shmq__topic *topic;
	unsigned id;

	CHECK_OK(shmq__slabs_create(slabs));
	for (id = 0; id < FAKE_SLABS; id++) {
		int fd = shmq__slabs_fd(f->slabs, id, SHMQ__SLAB_WRITE);

		fd = id == FAKE_BELLS ? shmq__shmem_reopen_writable(fd) :
					shmq__shmem_reopen_readonly(fd);
		CHECK_GE(fd, 0);
		CHECK_OK(shmq__slabs_add(*slabs, id, fd,
					 id == FAKE_BELLS ? SHMQ__SLAB_WRITE : SHMQ__SLAB_READ));
	}
	CHECK_OK(shmq__topic_attach(*slabs, 0, TOPIC_ID, SHMQ__SLAB_READ, &topic));
	return topic;
}

void fake_detach_readonly(struct shmq__topic *topic, struct shmq__slabs *slabs)
{
	shmq__topic_detach(topic);
	shmq__slabs_destroy(slabs);
}

/* ---- clients and members ---------------------------------------------------- */

struct lay_client *fake_client_record(struct fake *f, unsigned client)
{
	struct lay_client *c = shmq__slabs_client(f->slabs, client);

	CHECK(c);
	return c;
}

unsigned fake_client(struct fake *f, pid_t pid)
{
	unsigned id = ++f->clients;
	struct lay_client *c = fake_client_record(f, id);
	struct shmq__proc_id who;

	CHECK_OK(shmq__proc_identify(pid, &who));
	store_relaxed(&c->pid, (uint32_t)pid);
	store_relaxed(&c->start_time, who.start_time);
	store_relaxed(&c->pidns, who.pidns);
	store_relaxed(&c->state, LAY_CLIENT_LIVE);
	store_release(&c->gen, 1000); /* one client's count says nothing of another's */
	store_release(&f->registry->client_count, id + 1);
	return id;
}

static struct lay_member *free_place(struct fake *f)
{
	unsigned i = f->members++ % LAY_ROSTER_MEMBERS;
	struct lay_roster *chunk = shmq__slabs_at(f->slabs, f->last_chunk, sizeof(*chunk));

	if (f->members > LAY_ROSTER_MEMBERS && i == 0) {
		f->last_chunk = LAY_REF(FAKE_REGISTRY, f->heap);
		f->heap += sizeof(*chunk);
		store_release(&chunk->next, f->last_chunk);
		chunk = shmq__slabs_at(f->slabs, f->last_chunk, sizeof(*chunk));
	}
	CHECK(chunk);
	return &chunk->member[i];
}

struct lay_member *fake_member(struct fake *f, unsigned client, int partition)
{
	struct lay_member *m = free_place(f);
	uint32_t n = partition < 0 ? f->geo.partitions : 1, i;

	m->client = (uint16_t)client;
	m->client_gen = load_relaxed(&fake_client_record(f, client)->gen);
	m->token = ++f->tokens;
	m->partition = partition;
	m->entry = LAY_REF(FAKE_ENTRIES, f->entries);
	m->entry_gen = ++f->gen;
	f->entries += n * sizeof(struct lay_entry);
	for (i = 0; i < n; i++) {
		struct lay_entry *e =
			shmq__slabs_at(f->slabs, m->entry + i * sizeof(*e), sizeof(*e));

		store_relaxed(&e->pos, f->base_seq);
		store_release(&e->gen, m->entry_gen);
	}
	return m;
}

struct lay_entry *fake_entry(struct fake *f, struct lay_member *m, uint32_t partition)
{
	struct lay_entry *e = shmq__topic_entry(f->topic, m, partition);

	CHECK(e);
	return e;
}

struct lay_member *fake_publisher(struct fake *f, unsigned client)
{
	struct lay_member *m = fake_member(f, client, -1);

	shmq__topic_publish_member(f->topic, m, LAY_MEMBER_PUBLISHER);
	return m;
}

struct lay_member *fake_subscriber(struct fake *f, unsigned client, enum shmq_from from,
				   uint64_t seq)
{
	struct lay_member *m = fake_member(f, client, -1);

	shmq__topic_publish_member(f->topic, m, LAY_MEMBER_SUBSCRIBER);
	shmq__topic_join(f->topic, m, from, seq);
	return m;
}

uint32_t fake_arena(struct fake *f, const struct lay_member *publisher, uint64_t bytes)
{
	uint32_t id = f->arenas++;
	struct lay_arena *a;

	store_release(&f->registry->arena_count, f->arenas);
	a = shmq__slabs_arena(f->slabs, id);
	CHECK(a);
	a->client = publisher->client;
	a->client_gen = publisher->client_gen;
	a->topic_id = f->rec->id;
	a->mem = LAY_REF(FAKE_ARENAS, f->arena_bytes);
	a->bytes = (bytes + LAY_PAGE - 1) / LAY_PAGE * LAY_PAGE;
	f->arena_bytes += a->bytes;
	store_relaxed(&a->state, LAY_ARENA_OWNED);
	store_release(&a->gen, 700 + id);
	return id;
}

struct ring_writer fake_writer(struct fake *f, struct lay_member *m, uint32_t p)
{
	struct ring_writer w = { .mem = f->topic->ring[p].mem, .geo = f->geo, .owner = m->client };

	shmq__ring_takeover(&w);
	w.limit = w.next;
	store_release(&fake_entry(f, m, p)->pos, w.next);
	return w;
}

struct ring_reader fake_reader(struct fake *f, uint32_t p, uint64_t at)
{
	return (struct ring_reader){ .mem = f->topic->ring[p].mem, .geo = f->geo, .next = at };
}

/* ---- threads ------------------------------------------------------------------- */

pthread_t fake_thread(void *(*fn)(void *), void *arg)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, fn, arg), 0);
	return thread;
}

void fake_join(pthread_t thread)
{
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

void fake_dawdle(uint64_t turns)
{
	while (turns--)
		cpu_relax();
}

void fake_wait(unsigned *turns)
{
	if (++*turns % 512)
		cpu_relax();
	else
		sched_yield();
}

static _Atomic unsigned held_for;

static void hold(int sig)
{
	(void)sig;
	fake_dawdle(load_relaxed(&held_for));
}

void fake_hold_up(pthread_t thread, unsigned turns)
{
	static _Thread_local int ready;

	if (!ready) {
		struct sigaction action = { .sa_handler = hold, .sa_flags = SA_RESTART };

		CHECK_EQ(sigaction(SIGURG, &action, NULL), 0);
		ready = 1;
	}
	store_relaxed(&held_for, turns);
	CHECK_EQ(pthread_kill(thread, SIGURG), 0);
}

uint64_t fake_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* ---- instruction by instruction ------------------------------------------------- */

static struct {
	unsigned left, total, stride, budget;
	int fired;
	void (*fn)(void *);
	void *arg;
} step;

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)

#define TRAP_FLAG 0x100u

static void on_step(int sig, siginfo_t *info, void *context)
{
	ucontext_t *c = context;

	(void)sig;
	(void)info;
	if (--step.left)
		return; /* the next instruction traps again */
	c->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
	step.fired = 1;
	step.fn(step.arg);
}

void fake_step_begin(unsigned k, void (*fn)(void *), void *arg)
{
	struct sigaction action = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };

	CHECK_EQ(sigaction(SIGTRAP, &action, NULL), 0);
	step.left = k;
	step.fired = 0;
	step.fn = fn;
	step.arg = arg;
	fence_light(); /* what the handler reads is stored */
	__builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | TRAP_FLAG);
	fence_light();
}

int fake_step_end(void)
{
	fence_light();
	__builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~(uint64_t)TRAP_FLAG);
	fence_light();
	return step.fired;
}

#else

void fake_step_begin(unsigned k, void (*fn)(void *), void *arg)
{
	(void)k;
	(void)fn;
	(void)arg;
	SKIP("needs single steps of an x86-64 processor, and no ThreadSanitizer");
}

int fake_step_end(void)
{
	return step.fired;
}

#endif

unsigned fake_first_point(unsigned steps)
{
	step.budget = steps;
	return UINT32_MAX;
}

unsigned fake_next_point(unsigned k)
{
	if (k == UINT32_MAX) {
		step.total = k - step.left;
		/* A sum of an arithmetic series. */
		step.stride = (unsigned)((uint64_t)step.total * step.total / 2 / step.budget) + 1;
		k = 0;
	}
	k += k ? step.stride : 1;
	return k > step.total ? 0 : k;
}
