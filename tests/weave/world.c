/* SPDX-License-Identifier: MIT */
#include "weave.h"
#include "world.h"
#include "clock.h"
#include "mem.h"
#include "notify.h"
#include "proc.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>

struct world *world;

struct shmq__slabs {
	char *base;
};
static struct shmq__slabs slabs;
static struct bus_guard guard = { .alive = 1 };

/* ---- what a bus does ------------------------------------------------ */

lay_ref world_ref(const void *p)
{
	return LAY_REF(1, (uint64_t)((const char *)p - slabs.base));
}

void *shmq__slabs_at(const struct shmq__slabs *s, lay_ref ref, uint64_t bytes)
{
	return ref ? s->base + LAY_REF_OFF(ref) : NULL;
}

void *shmq__slabs_at_writable(const struct shmq__slabs *s, lay_ref ref, uint64_t bytes)
{
	return shmq__slabs_at(s, ref, bytes);
}

int shmq__slabs_map(const struct shmq__slabs *s, lay_ref ref, uint64_t bytes,
		    enum shmq__slabs_mode mode, void **out)
{
	*out = shmq__slabs_at(s, ref, bytes);
	return 0;
}

void shmq__slabs_unmap(const struct shmq__slabs *s, lay_ref ref, uint64_t bytes, void *mem)
{
}

struct lay_client *shmq__slabs_client(const struct shmq__slabs *s, unsigned id)
{
	return id && id <= WORLD_MEMBERS ? &world->client[id] : NULL;
}

struct lay_arena *shmq__slabs_arena(const struct shmq__slabs *s, uint32_t id)
{
	return id < WORLD_MEMBERS ? &world->arena[id] : NULL;
}

struct lay_topic *shmq__slabs_topic(const struct shmq__slabs *s, uint32_t index)
{
	return world->rec;
}

int shmq__proc_is_dead(const struct shmq__proc_id *id)
{
	return weave_has_died((int)id->pid - 1);
}

struct shmq__why *shmq__bus_why(void)
{
	return NULL;
}

int shmq__options_copy(void *to, const void *from, size_t known, struct shmq__why *why)
{
	memset(to, 0, known);
	if (from)
		memcpy(to, from, known);
	return 0;
}

int shmq__name_check_topic(const char *name, enum shmq__name_who who, struct shmq__why *why)
{
	return 0;
}

void shmq__bus_prepare(struct shmq_bus *bus, struct proto_request *req, enum proto_op op,
		       const char *topic)
{
	memset(req, 0, sizeof(*req));
}

int shmq__bus_reach(struct shmq_bus *bus, const struct shmq__topic *topic, lay_ref ref)
{
	(void)bus;
	(void)topic;
	(void)ref;
	return 0;
}

int shmq__bus_notify(struct shmq_bus *bus, struct proto_request *req)
{
	return 0;
}

enum shmq__fence shmq__bus_ready(struct shmq_bus *bus, unsigned topic_flags)
{
	return world->o.fence;
}

enum shmq__fence shmq__bus_commit_fence(const struct shmq_bus *bus, enum shmq__fence fence)
{
	(void)bus;
	return fence;
}

void shmq__bus_move_handle(struct shmq__handle *to, struct shmq__handle *from)
{
}

void shmq__bus_close_handle(struct shmq__handle *h)
{
}

void shmq__bus_defer(struct shmq_bus *bus, struct shmq__handle *h, int64_t wake_ns)
{
}

void shmq__bus_undefer(struct shmq_bus *bus, struct shmq__handle *h)
{
}

void shmq__waitset_forget(struct shmq_waitset *set, struct shmq_sub *sub)
{
}

/* The supervisor's part, as daemon/open.c has it. */
void world_count(shmq_au32 *handles, unsigned by)
{
	store_release(handles, load_relaxed(handles) + by);
}

int shmq__bus_open_handle(struct shmq_bus *bus, struct proto_request *req, struct shmq__handle *h,
			  enum shmq__slabs_mode mode, struct shmq__why *why)
{
	unsigned i = world->members++;
	struct lay_member *m = &world->roster->member[i];
	struct lay_entry *e = &world->entry[i];
	int publishes = req->open.role == SHMQ_ROLE_PUBLISHER;

	store_relaxed(&e->pos, world->ring->base_seq);
	m->client = (uint16_t)bus->client;
	m->client_gen = load_relaxed(&world->client[bus->client].gen);
	m->token = i + 1;
	m->entry = world_ref(e);
	m->entry_gen = i + 1;
	m->partition = -1;
	store_release(&e->gen, m->entry_gen);
	*h = (struct shmq__handle){ .bus = bus,
				    .token = i + 1,
				    .topic = world->topic,
				    .entry = e,
				    .entry_count = 1,
				    .close = h->close };
	if (publishes && world->o.arena_bytes)
		h->arena = world->arena_of[bus->client] ? world->arena_of[bus->client] : i + 1;
	if (publishes)
		world_count(&world->rec->publishers, 1);
	shmq__topic_publish_member(world->topic, m,
				   publishes ? LAY_MEMBER_PUBLISHER : LAY_MEMBER_SUBSCRIBER);
	if (!publishes) {
		shmq__topic_join(world->topic, m, req->open.from, req->open.seq);
		world_count(&world->rec->subscribers, 1);
		shmq__topic_announce(world->rec);
	}
	return 0;
}

/* What a fiber takes is gone with the execution. */
void *shmq__mem_apart(size_t bytes, size_t apart)
{
	uintptr_t at = (uintptr_t)calloc(1, bytes + apart) + apart - 1;

	return (void *)(at & ~(uintptr_t)(apart - 1));
}

void *shmq__mem_get(size_t bytes)
{
	return calloc(1, bytes);
}

/* Nobody here has a descriptor. */
int shmq__notify_open(struct shmq_bus *bus, enum notify_kind kind, struct shmq__notify **out)
{
	return SHMQ_EOPTION;
}

int shmq__notify_words(struct shmq__notify *n, const shmq_au32 *const *word, unsigned count)
{
	return SHMQ_EOPTION;
}

int shmq__notify_fd(const struct shmq__notify *n)
{
	return -1;
}

void shmq__notify_close(struct shmq__notify *n)
{
}

int shmq__sub_rearm(struct shmq_sub *sub, struct shmq_msg *msg)
{
	return SHMQ_EEMPTY;
}

/* No subscriber here is of a pattern. */
int shmq__name_is_pattern(const char *text)
{
	return 0;
}

int shmq__pattern_open(struct shmq_bus *bus, const char *pattern, const struct shmq_sub_options *o,
		       struct shmq_sub **out, struct shmq__why *why)
{
	return SHMQ_EOPTION;
}

void shmq__pattern_close(struct shmq_sub *sub)
{
}

int shmq__pattern_look(struct shmq_sub *sub, struct shmq_msg *msg)
{
	return SHMQ_EEMPTY;
}

int shmq__pattern_end_of_stream(struct shmq_sub *sub, struct shmq_msg *msg)
{
	return SHMQ_EEMPTY;
}

int shmq__pattern_is_ready(struct shmq_sub *sub)
{
	return 0;
}

int64_t shmq__pattern_report_stuck(struct shmq_sub *sub)
{
	return SHMQ_FOREVER;
}

void shmq__pattern_show_asleep(struct shmq_sub *sub, uint32_t asleep)
{
}

unsigned shmq__pattern_bells(const struct shmq_sub *sub)
{
	return 0;
}

void shmq__pattern_list_bells(const struct shmq_sub *sub, struct lay_bell **list)
{
}

void shmq__pattern_get_stats(const struct shmq_sub *sub, struct shmq_sub_stats *out)
{
}

const shmq_au32 *shmq__pattern_word(const struct shmq_sub *sub)
{
	return NULL;
}

int shmq__pattern_prepare_park(struct shmq_sub *sub)
{
	return 0;
}

struct shmq_sub *shmq__pattern_in_hand(const struct shmq_sub *sub)
{
	return NULL;
}

void shmq__pattern_release(struct shmq_sub *sub)
{
}

void shmq__pattern_take_back(struct shmq_sub *sub)
{
}

const char *shmq__pattern_topic(const struct shmq_sub *sub)
{
	return "";
}

const struct shmq_sub *shmq__pattern_teller(const struct shmq_sub *sub)
{
	return NULL;
}

/* Nobody is called back. */
void shmq__listener_forget(struct shmq_listener *l)
{
}

/* And none is for a slow display. */
int shmq__conflate_receive(struct shmq_sub *sub, struct shmq_msg *msg, int64_t timeout_ns)
{
	return SHMQ_EEMPTY;
}

int shmq__conflate_receive_copy(struct shmq_sub *sub, void *buf, size_t capacity,
				struct shmq_msg *msg, int64_t timeout_ns)
{
	return SHMQ_EEMPTY;
}

void shmq__conflate_release(struct shmq_sub *sub)
{
}

int shmq__conflate_has_some(const struct shmq_sub *sub)
{
	return 0;
}

void shmq__conflate_get_stats(const struct shmq_sub *sub, struct shmq_sub_stats *stats)
{
}

int shmq__conflate_open(struct shmq_sub *sub)
{
	return SHMQ_EOPTION;
}

void shmq__conflate_close(struct shmq_sub *sub)
{
}

/* No topic here has a log. */
int shmq__sub_replay_open(struct shmq_sub *sub, const struct shmq_sub_options *o,
			  struct shmq__why *why)
{
	return SHMQ_EOPTION;
}

void shmq__sub_replay_close(struct rlane *l)
{
}

int shmq__sub_replay_look(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	return SHMQ_EEMPTY;
}

int shmq__sub_replay_receive(struct shmq_sub *sub, struct shmq_msg *msg)
{
	return SHMQ_EEMPTY;
}

void shmq__sub_replay_step(struct shmq_sub *sub, struct rlane *l, uint64_t seq)
{
}

int shmq__sub_replay_enter(struct shmq_sub *sub, struct rlane *l)
{
	return 0;
}

int shmq__sub_replay_join(struct shmq_sub *sub)
{
	return 0;
}

int shmq__sub_replay_lacks(const struct rlane *l)
{
	return 0;
}

int shmq__sub_replay_is_ready(const struct shmq_sub *sub, const struct rlane *l)
{
	return 0;
}

int shmq__sub_store_open(struct shmq_sub *sub, const char *name, struct shmq__why *why)
{
	return SHMQ_EOPTION;
}

int shmq__sub_store_begin(struct shmq_sub *sub, struct shmq__why *why)
{
	return SHMQ_EOPTION;
}

void shmq__sub_store_close(struct shmq_sub *sub)
{
}

int shmq__name_check_cursor(const char *name, struct shmq__why *why)
{
	return SHMQ_EOPTION;
}

void shmq__mem_put(void *mem, size_t bytes)
{
	free(mem);
}

/* ---- time stands almost still --------------------------------------- */

uint64_t shmq__clock_monotonic_ns(void)
{
	return UINT64_C(1000000000) + weave_looks() * 600000;
}

uint64_t shmq__clock_realtime_ns(void)
{
	return 1;
}

uint64_t shmq__clock_deadline(int64_t timeout_ns)
{
	return UINT64_MAX;
}

int64_t shmq__clock_left(uint64_t deadline)
{
	return -1;
}

int sched_yield(void)
{
	if (weave_self() >= 0)
		weave_yield();
	return 0;
}

int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	return 0;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
		   void *arg)
{
	*thread = (pthread_t)weave_attend("thread", (void (*)(void *))(uintptr_t)run, arg);
	return 0;
}

/* ---- the world ------------------------------------------------------ */

void world_new(const struct world_options *o)
{
	struct lay_partition *part;
	struct lay_geometry *g;
	struct lay_arena *a;
	uint64_t n;
	unsigned i;

	weave_late("bell.c:shmq__bell_arm:load_relaxed");
	weave_late("park.c:shmq__park_arm:load_relaxed");
	world = weave_alloc(sizeof(*world));
	slabs.base = (char *)world;
	world->o = *o;
	if (!world->o.depth)
		world->o.depth = 4;
	if (!world->o.mode)
		world->o.mode = SHMQ_EXCLUSIVE;
	if (!world->o.policy)
		world->o.policy = SHMQ_BLOCK;
	if (!world->o.fence)
		world->o.fence = SHMQ__FENCE_LIGHT;
	g = &world->geo;
	*g = (struct lay_geometry){
		.depth = world->o.depth,
		.mask = world->o.depth - 1,
		.depth_shift = (uint32_t)__builtin_ctzll(world->o.depth),
		.slot_bytes = 64,
		.payload_off = 16,
		.inline_bytes = world->o.arena_bytes ? 16 : 48,
		.max_bytes = 64,
		.partitions = 1,
		.mode = world->o.mode,
		.policy = world->o.policy,
		.stall = SHMQ_STALL_KILL,
		.wait = SHMQ_WAIT_SLEEP,
		.ring_bytes = LAY_RING_HEADER_BYTES + 64 * world->o.depth,
	};
	world->rec = weave_alloc(sizeof(*world->rec));
	world->ring = weave_alloc(g->ring_bytes);
	world->bells = weave_alloc(sizeof(*world->bells));
	world->client = weave_alloc((WORLD_MEMBERS + 1) * sizeof(*world->client));
	world->roster = weave_alloc(sizeof(*world->roster));
	world->entry = weave_alloc(WORLD_MEMBERS * sizeof(*world->entry));
	world->topic = weave_alloc(sizeof(*world->topic) + sizeof(world->topic->ring[0]));
	world->arena = weave_alloc(WORLD_MEMBERS * sizeof(*world->arena));
	world->arena_mem = weave_alloc(WORLD_MEMBERS * world->o.arena_bytes);
	shmq__layout_init_ring(world->ring, LAY_VERSION, g, 1, 0, world->o.base_seq);
	part = weave_alloc(sizeof(*part));
	part->base_seq = world->o.base_seq;
	world->rec->roster = world_ref(world->roster);
	world->rec->id = 1;
	world->rec->block_timeout_ns = world->rec->evict_ns = -1;
	store_relaxed(&world->rec->state, LAY_TOPIC_LIVE);
	*world->topic =
		(struct shmq__topic){ .slabs = &slabs, .rec = world->rec, .id = 1, .geo = *g };
	world->topic->ring[0] = (struct shmq__ring){
		.geo = *g, .mem = world->ring, .bells = world->bells, .part = part
	};
	for (i = 0; i < WORLD_MEMBERS; i++) {
		struct lay_client *c = &world->client[i + 1];

		store_relaxed(&c->gen, 1);
		store_relaxed(&c->pid, i + 1);
		store_relaxed(&c->state, LAY_CLIENT_LIVE);
		a = &world->arena[i];
		store_relaxed(&a->gen, 1);
		a->mem = world_ref(world->arena_mem + i * world->o.arena_bytes);
		a->bytes = world->o.arena_bytes;
		weave_name(&world->entry[i], "entry %u", i);
	}
	weave_name(world->rec, "topic");
	weave_name(world->ring, "ring");
	weave_name(&world->ring->tail_hint, "tail hint");
	weave_name(&world->ring->void_count, "voids");
	weave_name(&world->bells->data, "data bell");
	weave_name(&world->bells->credit, "credit bell");
	weave_name(world->roster, "roster");
	weave_name(world->client, "clients");
	weave_name(world->arena_mem, "arena");
	for (n = 0; n < g->depth; n++)
		weave_name(lay_slot_at(world->ring, g, world->o.base_seq + n), "slot %u",
			   (unsigned)n);
}

static shmq_bus *bus_of(int fiber)
{
	static struct shmq_bus buses[WORLD_MEMBERS];
	shmq_bus *bus = &buses[fiber];

	bus->guard = &guard;
	bus->slabs = &slabs;
	bus->client = (unsigned)fiber + 1;
	return bus;
}

shmq_pub *world_pub(int fiber)
{
	struct shmq_pub_options o = { .size = sizeof(o), .wait = SHMQ_WAIT_SLEEP };
	shmq_pub *pub;

	WANT_EQ(shmq_pub_open(bus_of(fiber), "t", &o, &pub), 0);
	return pub;
}

shmq_pub *world_pub_in(int fiber, unsigned n)
{
	world->arena_of[fiber + 1] = n + 1;
	return world_pub(fiber);
}

shmq_sub *world_sub(int fiber, enum shmq_from from)
{
	struct shmq_sub_options o = { .size = sizeof(o), .wait = SHMQ_WAIT_SLEEP, .from = from };
	shmq_sub *sub;

	WANT_EQ(shmq_sub_open(bus_of(fiber), "t", &o, &sub), 0);
	return sub;
}

struct lay_member *world_member(const struct shmq__handle *h)
{
	return &world->roster->member[h->token - 1];
}

/* ---- messages ------------------------------------------------------- */

uint64_t world_value(unsigned who, unsigned n)
{
	return UINT64_C(0x1000) * (who + 1) + n;
}

int world_publish(shmq_pub *pub, unsigned who, unsigned n)
{
	uint64_t words[WORLD_WORDS];
	unsigned i;

	for (i = 0; i < WORLD_WORDS; i++)
		words[i] = world_value(who, n);
	return shmq_publish(pub, words, sizeof(words));
}

static void take(struct world_reader *r, const struct shmq_msg *m, const uint64_t *words)
{
	unsigned who = (unsigned)(words[0] / 0x1000) - 1, n = words[0] % 0x1000, i;

	weave_tell("received %u of %u at %llu", n, who, (unsigned long long)m->seq);
	WANT_EQ(m->len, WORLD_WORDS * sizeof(*words));
	for (i = 1; i < WORLD_WORDS; i++)
		WANT_EQ(words[i], words[0]);
	WANT(who < WORLD_MEMBERS);
	if (!r->lost && !(r->any_first && !r->next[who]))
		WANT_EQ(n, r->next[who]);
	WANT(n >= r->next[who]);
	WANT(!r->got || (int64_t)(m->seq - r->seq) > 0);
	r->next[who] = n + 1;
	r->seq = m->seq;
	r->got++;
}

/* The message handed to it before was given back. */
static void take_late(struct world_reader *r)
{
	weave_settle();
	if (r->late.len)
		take(r, &r->late, r->words);
	r->late.len = 0;
}

static int take_polled(void *arg, const struct shmq_msg *m)
{
	struct world_reader *r = arg;

	take_late(r);
	WANT_EQ(m->len, sizeof(r->words));
	r->late = *m;
	weave_read_late(r->words, m->data, sizeof(r->words));
	return 0;
}

int world_receive(struct world_reader *r, int64_t timeout_ns)
{
	uint64_t words[WORLD_WORDS] = { 0 };
	struct shmq_msg m;
	int rc;

	if (r->polls) {
		rc = (int)shmq_poll(r->sub, take_polled, r, 4, timeout_ns);
		WANT_EQ(shmq_release(r->sub), 0);
		take_late(r);
		return rc < 0 ? rc : 0;
	}
	if (r->sub->gates) { /* in place, and as late as is allowed */
		rc = shmq_receive(r->sub, &m, timeout_ns);
		if (!rc) {
			WANT_EQ(m.len, sizeof(words));
			weave_read_late(words, m.data, sizeof(words));
			WANT_EQ(shmq_release(r->sub), 0);
			weave_settle();
		}
	} else {
		rc = shmq_receive_copy(r->sub, words, sizeof(words), &m, timeout_ns);
	}
	if (!rc)
		take(r, &m, words);
	if (rc == SHMQ_EOVERRUN) {
		WANT(r->may_lose);
		weave_tell("%llu lost", (unsigned long long)m.lost);
		WANT(r->may_be_bound || !m.lost_is_bound);
		r->is_bound |= m.lost_is_bound;
		r->lost += m.lost;
	}
	return rc;
}

void world_receive_last(struct world_reader *r)
{
	uint64_t words[WORLD_WORDS] = { 0 };
	struct shmq_msg m;

	WANT_EQ(shmq_receive(r->sub, &m, -1), 0);
	weave_read_late(words, m.data, sizeof(words));
	shmq_sub_close(r->sub);
	weave_settle();
	take(r, &m, words);
}

void world_receive_all(struct world_reader *r, uint64_t all)
{
	while (r->got + r->lost < all) {
		int rc = world_receive(r, -1);

		WANT(!rc || rc == SHMQ_EOVERRUN);
	}
	WANT_EQ(r->got + r->lost, all);
}

void world_drain(struct world_reader *r, unsigned looks)
{
	int last = 0, rc;

	for (;;) {
		rc = world_receive(r, SHMQ_NOWAIT);
		WANT(!rc || rc == SHMQ_EOVERRUN || rc == SHMQ_EEMPTY);
		if (looks)
			looks--;
		else if (rc == SHMQ_EEMPTY && last)
			return;
		else if (rc == SHMQ_EEMPTY)
			last = !weave_idle();
	}
}

uint64_t world_word(uint64_t seq)
{
	return load_relaxed(&lay_slot_at(world->ring, &world->geo, seq)->ctrl);
}
