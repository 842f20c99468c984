/* SPDX-License-Identifier: MIT
 *
 * A control worker that dies at any instruction of what it does for clients
 * who come, join, leave and die: its successor, on a copy of what it left,
 * finds everything in order and can go on to the end.
 */
#include "worker.h"

#include "ring.h"
#include "steps.h"

#include <sys/mman.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { ARENA = 16384, LARGE = 2000 };

struct scene {
	const char *name;
	void (*prepare)(void);
	void (*act)(void);
	unsigned allowed;
};
enum {
	CLAIMS_STAY = 1, /* of one whose handle is gone: until somebody reports */
	MAY_DISCARD = 2, /* a topic that was still being made */
};

/* ---- slabs below and above ------------------------------------------------------- */

static struct link_slab below[LINK_SLABS_MAX];
static struct link_slab above[LINK_SLABS_MAX];
static struct watch watch;
static char *copy[64]; /* above, of what is watched */

static void make_slabs(void)
{
	unsigned count = registry_slabs_wanted(0, below), i;

	registry_slabs_wanted(0, above);
	for (i = 0; i < count; i++) {
		CHECK_GE(below[i].fd = registry_make_slab(i, &below[i]), 0);
		CHECK_GE(above[i].fd = registry_make_slab(i, &above[i]), 0);
	}
}

static void close_slabs(void)
{
	for (unsigned i = 0; i < LINK_SLABS_MAX; i++) {
		if (below[i].fd >= 0)
			close(below[i].fd);
		if (above[i].fd >= 0)
			close(above[i].fd);
	}
}

static void *map_at(int fd, uint64_t off, size_t bytes)
{
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)off);

	CHECK(mem != MAP_FAILED);
	return mem;
}

static void watch_at(enum watch_kind kind, unsigned slab, uint64_t off, size_t bytes,
		     const struct lay_geometry *geo)
{
	copy[watch.count] = map_at(above[slab].fd, off, bytes);
	watch_add(&watch, kind, map_at(below[slab].fd, off, bytes), bytes, off, geo);
}

static void watch_rings(void)
{
	const char *base = map_at(below[0].fd, 0, LAY_REGISTRY_BYTES);
	const struct lay_topic *t = (const void *)(base + LAY_TOPICS_OFF);
	struct lay_registry *head = (void *)(uintptr_t)base;
	struct lay_geometry geo;
	lay_ref next = 0;
	uint32_t i;

	for (i = 0; i < load_relaxed(&head->topic_count); i++) {
		const struct lay_partition *part =
			(const void *)(base + LAY_REF_OFF(t[i].partition_array));

		CHECK_OK(shmq__layout_geometry(&t[i], &geo));
		watch_at(WATCH_RING, LAY_REF_SLAB(part->ring), LAY_REF_OFF(part->ring),
			 geo.ring_bytes, &geo);
		if (part->ring + geo.ring_bytes > next)
			next = part->ring + geo.ring_bytes;
	}
	if (next) /* where a topic would move to */
		watch_at(WATCH_RING, LAY_REF_SLAB(next), LAY_REF_OFF(next), geo.ring_bytes, &geo);
	munmap((void *)(uintptr_t)base, LAY_REGISTRY_BYTES);
}

/* Everything is handed out lowest first, and there is little of it. */
static void watch_all(void)
{
	watch_at(WATCH_REGISTRY, 0, 0, LAY_PAGE, NULL);
	watch_at(WATCH_REGISTRY, 0, LAY_CLIENTS_OFF, LAY_PAGE, NULL);
	watch_at(WATCH_REGISTRY, 0, LAY_SLABS_OFF, LAY_PAGE, NULL);
	watch_at(WATCH_REGISTRY, 0, LAY_ARENAS_OFF, LAY_PAGE, NULL);
	watch_at(WATCH_REGISTRY, 0, LAY_TOPICS_OFF, 2 * LAY_PAGE, NULL);
	watch_at(WATCH_REGISTRY, 0, LAY_HEAP_OFF, 8 * LAY_PAGE, NULL);
	watch_at(WATCH_BELLS, 1, 0, LAY_PAGE, NULL);
	watch_at(WATCH_ENTRIES, 2, 0, 8 * LAY_PAGE, NULL);
	watch_rings();
}

static void unwatch_all(void)
{
	for (unsigned i = 0; i < watch.count; i++) {
		munmap(watch.range[i].mem, watch.range[i].bytes);
		munmap(copy[i], watch.range[i].bytes);
	}
	watch_free(&watch);
}

/* ---- the successor ------------------------------------------------------------------ */

static void begin_above(void)
{
	struct link_slab slab[LINK_SLABS_MAX];

	memcpy(slab, above, sizeof(slab));
	for (unsigned i = 0; i < LINK_SLABS_MAX; i++)
		if (slab[i].fd >= 0)
			CHECK_GE(slab[i].fd = fcntl(slab[i].fd, F_DUPFD_CLOEXEC, 0), 0);
	worker_begin(slab);
}

/* As control.c does it. */
static struct registry_found adopt(void)
{
	struct registry_found found;
	uint32_t i;

	CHECK_OK(registry_adopt(c.reg, &found));
	death_check_all(&c);
	for (i = 0; i < c.reg->topic_capacity; i++)
		if (c.reg->topic[i])
			create_reap_topic(&c, c.reg->topic[i]);
	orphan_adopt(&c);
	registry_give_back(c.reg);
	worker_serve();
	return found;
}

struct count {
	unsigned publishers, subscribers;
};

/* Of a topic that lives readers wait, and publishers are not refused; of one that
 * ended both are told. */
static void check_rings(const struct topic *t)
{
	uint32_t state = load_relaxed(&t->attached->ring[0].mem->state);

	if (load_relaxed(&t->rec->state) == LAY_TOPIC_LIVE)
		CHECK_EQ(state, LAY_RING_LIVE);
	else
		CHECK(lay_ring_is_closed(state));
}

/* Counts are right, members are of the living and have what they need, nothing
 * is claimed by one who is gone. */
static void check_topic(const struct topic *t)
{
	struct shmq__why why = { "" };
	struct count n = { 0 };
	struct handle *h;
	uint64_t i;

	CHECK_OK(registry_attach(c.reg, (struct topic *)(uintptr_t)t, &why));
	check_rings(t);
	LIST_FOREACH (h, &t->handles, of_topic) {
		uint32_t state = load_relaxed(&h->member->state);

		CHECK_NE(state, LAY_MEMBER_FREE);
		CHECK_EQ(load_relaxed(&h->peer->rec->state), LAY_CLIENT_LIVE);
		CHECK(shmq__topic_entry(t->attached, h->member, 0));
		n.publishers += h->role == SHMQ_ROLE_PUBLISHER;
		n.subscribers += h->role == SHMQ_ROLE_SUBSCRIBER;
		if (h->member->arena)
			CHECK_EQ(load_relaxed(&shmq__slabs_arena(c.reg->slabs, h->member->arena - 1)
						       ->state),
				 LAY_ARENA_OWNED);
	}
	CHECK_EQ(load_relaxed(&t->rec->publishers), n.publishers);
	CHECK_EQ(load_relaxed(&t->rec->subscribers), n.subscribers);
	for (i = 0; i < t->attached->geo.depth; i++) {
		struct lay_slot *s = lay_slot_at(t->attached->ring[0].mem, &t->attached->geo, i);
		uint64_t w = load_relaxed(&s->ctrl);

		if (LAY_CTRL_STATE(w) == LAY_CLAIMED)
			CHECK(c.reg->peer[LAY_CTRL_OWNER(w)] &&
			      !c.reg->peer[LAY_CTRL_OWNER(w)]->parting);
	}
}

static unsigned count_arenas(enum lay_arena_state state)
{
	unsigned n = 0, i;

	for (i = 0; i < load_relaxed(&c.reg->head->arena_count); i++)
		n += load_relaxed(&shmq__slabs_arena(c.reg->slabs, i)->state) == (uint32_t)state;
	return n;
}

static unsigned count_members_with_arena(void)
{
	struct handle *h;
	struct peer *p;
	unsigned n = 0;

	LIST_FOREACH (p, &c.reg->peers, link)
		LIST_FOREACH (h, &p->handles, of_peer)
			n += h->member->arena != 0;
	return n;
}

static uint64_t taken(const struct pool *p)
{
	return extent_bytes(p->ranges) - extent_free_bytes(p->ranges);
}

static uint64_t taken_of_slabs(void)
{
	uint64_t bytes = 0;
	unsigned i;

	for (i = 0; i < LINK_SLABS_MAX; i++)
		if (c.reg->pool[i])
			bytes += taken(c.reg->pool[i]);
	return bytes;
}

/* Everybody dies, every topic is removed: then nothing is left. */
static void check_nothing_stays(int claims_stay)
{
	struct shmq__why why = { "" };
	uint32_t i;

	worker_bury_all();
	CHECK_EQ(count_arenas(LAY_ARENA_OWNED), 0);
	for (i = 0; i < c.reg->topic_capacity; i++) {
		struct topic *t = c.reg->topic[i];

		if (!t)
			continue;
		CHECK(LIST_EMPTY(&t->handles));
		CHECK_OK(registry_attach(c.reg, t, &why));
		for (uint64_t k = 0; k < t->attached->geo.depth && !claims_stay; k++)
			CHECK_NE(LAY_CTRL_STATE(load_relaxed(&lay_slot_at(t->attached->ring[0].mem,
									  &t->attached->geo, k)
								      ->ctrl)),
				 LAY_CLAIMED);
		registry_detach(c.reg, t);
		CHECK_OK(create_end_topic(&c, t, NULL, &why));
		create_reap_topic(&c, t);
	}
	CHECK_EQ(c.reg->peer_count, 0);
	CHECK_EQ(count_arenas(LAY_ARENA_OWNED) + count_arenas(LAY_ARENA_ORPHAN), 0);
	CHECK_EQ(taken(&c.reg->heap), 0);
	for (i = 0; i < 1000 && taken_of_slabs(); i++) {
		worker_turn(); /* what is freed is punched first */
		test_sleep_ms(1);
	}
	CHECK_EQ(taken_of_slabs(), 0);
}

/* Whose rings say that it moved: a reader may have left them by now, and would miss
 * all that they are given yet. */
static unsigned note_moved(uint64_t id[64])
{
	unsigned n = 0, i;

	for (i = 0; i < watch.count; i++) {
		const struct lay_ring *ring = (const void *)copy[i];

		if (watch.range[i].kind == WATCH_RING &&
		    load_relaxed(&((struct lay_ring *)(uintptr_t)ring)->state) == LAY_RING_MOVED)
			id[n++] = ring->topic_id;
	}
	return n;
}

static void check_moved(const uint64_t *id, unsigned n)
{
	uint32_t i;

	while (n--)
		for (i = 0; i < c.reg->topic_capacity; i++)
			if (c.reg->topic[i] && c.reg->topic[i]->rec->id == id[n])
				CHECK_EQ(load_relaxed(&c.reg->topic[i]->rec->state),
					 LAY_TOPIC_ENDED);
}

static void succeed(const struct scene *scene)
{
	struct registry_found found;
	uint64_t moved[64];
	unsigned i, n;

	for (i = 0; i < watch.count; i++)
		memcpy(copy[i], watch.range[i].seen, watch.range[i].bytes);
	n = note_moved(moved);
	begin_above();
	found = adopt();
	check_moved(moved, n);
	CHECK_LE(found.discarded, scene->allowed & MAY_DISCARD ? 1 : 0);
	for (i = 0; i < c.reg->topic_capacity; i++)
		if (c.reg->topic[i])
			check_topic(c.reg->topic[i]);
	CHECK_EQ(count_arenas(LAY_ARENA_OWNED), count_members_with_arena());
	check_nothing_stays(scene->allowed & CLAIMS_STAY);
	worker_end();
}

/* ---- the subject ---------------------------------------------------------------------- */

static int one, two; /* clients */
static struct proto_request req;

static void act_call(void)
{
	struct proto_reply reply = worker_call(one, &req);

	CHECK_OK(reply.error);
}

static void make_topics(void)
{
	struct proto_request creations[] = {
		worker_creation("exclusive", SHMQ_EXCLUSIVE, 0),
		worker_creation("shared", SHMQ_SHARED, 0),
		worker_creation("large", SHMQ_EXCLUSIVE, LARGE),
	};

	one = worker_join(1);
	two = worker_join(2);
	for (size_t i = 0; i < COUNT(creations); i++)
		CHECK_OK(worker_call(one, &creations[i]).error);
}

static void open_by(int fd, const char *topic, enum shmq_role role)
{
	struct proto_request o = worker_opening(topic, role);

	CHECK_OK(worker_call(fd, &o).error);
}

static void prepare_attach(void)
{
	make_topics();
	one = worker_dial();
	req = worker_greeting(3);
}

static void prepare_join(void)
{
	make_topics();
	open_by(two, "shared", SHMQ_ROLE_PUBLISHER);
	req = worker_opening("shared", SHMQ_ROLE_SUBSCRIBER);
}

static void prepare_publish(void)
{
	make_topics();
	open_by(two, "exclusive", SHMQ_ROLE_SUBSCRIBER);
	req = worker_opening("exclusive", SHMQ_ROLE_PUBLISHER);
}

static void prepare_publish_large(void)
{
	make_topics();
	req = worker_opening("large", SHMQ_ROLE_PUBLISHER);
}

static void prepare_close(void)
{
	struct proto_request o;

	make_topics();
	o = worker_opening("large", SHMQ_ROLE_PUBLISHER);
	CHECK_OK(worker_call(one, &o).error);
	req = worker_request(PROTO_CLOSE, "");
	req.close.handle = o.token;
}

/* It takes the arena that an earlier one left. */
static void prepare_inherit(void)
{
	prepare_close();
	CHECK_OK(worker_call(one, &req).error);
	req = worker_opening("large", SHMQ_ROLE_PUBLISHER);
}

static void prepare_leave(void)
{
	struct proto_request o;

	make_topics();
	o = worker_opening("shared", SHMQ_ROLE_SUBSCRIBER);
	CHECK_OK(worker_call(one, &o).error);
	req = worker_request(PROTO_CLOSE, "");
	req.close.handle = o.token;
}

static void claim(const char *topic, unsigned client, uint64_t seq)
{
	struct topic *t = registry_find(c.reg, topic);
	struct shmq__why why = { "" };
	struct shmq__ring *ring;

	CHECK_OK(registry_attach(c.reg, t, &why));
	ring = &t->attached->ring[0];
	store_release(&lay_slot_at(ring->mem, &ring->geo, seq)->ctrl,
		      LAY_CTRL(lay_lap(&ring->geo, seq), client, LAY_CLAIMED));
}

static void prepare_many(void)
{
	make_topics();
	open_by(one, "exclusive", SHMQ_ROLE_PUBLISHER);
	open_by(one, "shared", SHMQ_ROLE_PUBLISHER);
	open_by(one, "shared", SHMQ_ROLE_SUBSCRIBER);
	open_by(one, "large", SHMQ_ROLE_PUBLISHER);
	open_by(two, "shared", SHMQ_ROLE_PUBLISHER);
	open_by(two, "shared", SHMQ_ROLE_SUBSCRIBER);
}

static void prepare_goodbye(void)
{
	prepare_many();
	req = worker_request(PROTO_GOODBYE, "");
}

static void prepare_death(void)
{
	prepare_many();
	claim("shared", worker_peer(1)->id, 0);
	claim("shared", worker_peer(1)->id, 1);
}

static void act_death(void)
{
	death_of(&c, worker_peer(1), "died");
	while (!TAILQ_EMPTY(&c.partings))
		worker_turn();
}

static void prepare_removal(void)
{
	prepare_many();
	req = worker_request(PROTO_REMOVE, "shared");
	req.remove.flags = SHMQ_FORCE;
}

static void prepare_move(void)
{
	prepare_many();
	req = worker_request(PROTO_MOVE, "shared");
}

static void prepare_eviction(void)
{
	struct proto_request o = worker_creation("evict", SHMQ_SHARED, 0);

	make_topics();
	o.create.policy = SHMQ_EVICT;
	CHECK_OK(worker_call(one, &o).error);
	open_by(one, "evict", SHMQ_ROLE_PUBLISHER);
	o = worker_opening("evict", SHMQ_ROLE_SUBSCRIBER);
	CHECK_OK(worker_call(two, &o).error);
	req = worker_request(PROTO_REPORT, "evict");
	req.report.kind = PROTO_REPORT_EVICT;
	req.report.topic_id = registry_find(c.reg, "evict")->rec->id;
	req.report.handle = o.token;
	req.report.client = worker_peer(2)->id;
	req.report.client_gen = worker_peer(2)->gen;
}

/* The claim of one who closed its handle in it, and lives on. */
static void prepare_ownerless(void)
{
	make_topics();
	open_by(two, "shared", SHMQ_ROLE_PUBLISHER);
	claim("shared", worker_peer(1)->id, 0);
	req = worker_request(PROTO_REPORT, "shared");
	req.report.kind = PROTO_REPORT_STUCK;
	req.report.topic_id = registry_find(c.reg, "shared")->rec->id;
	req.report.seq = 0;
	req.report.word = LAY_CTRL(0, worker_peer(1)->id, LAY_CLAIMED);
}

static void act_report(void)
{
	CHECK_OK(worker_call(two, &req).error);
}

/* Nothing in it can be read: it is freed when it is looked through. */
static void prepare_orphan(void)
{
	prepare_close();
	CHECK_OK(worker_call(one, &req).error);
	while (shmq__clock_monotonic_ns() < c.orphan_timer.due_ns)
		test_sleep_ms(10);
}

static void act_turn(void)
{
	worker_turn();
}

/* A worker after another one, which died while it took one of them out. */
static void prepare_adoption(void)
{
	struct link_slab slab[LINK_SLABS_MAX];

	prepare_death();
	store_release(&worker_peer(1)->rec->state, LAY_CLIENT_DEAD);
	memcpy(slab, c.slab, sizeof(slab));
	for (unsigned i = 0; i < LINK_SLABS_MAX; i++)
		if (slab[i].fd >= 0)
			CHECK_GE(slab[i].fd = fcntl(slab[i].fd, F_DUPFD_CLOEXEC, 0), 0);
	worker_end();
	worker_begin(slab);
}

static void act_adoption(void)
{
	adopt();
}

static const struct scene scenes[] = {
	{ "attach", prepare_attach, act_call, 0 },
	{ "join as subscriber", prepare_join, act_call, 0 },
	{ "join as publisher", prepare_publish, act_call, 0 },
	{ "join as publisher with an arena", prepare_publish_large, act_call, 0 },
	{ "join as publisher with the arena of another", prepare_inherit, act_call, 0 },
	{ "leave as publisher with an arena", prepare_close, act_call, 0 },
	{ "leave as subscriber", prepare_leave, act_call, 0 },
	{ "detach", prepare_goodbye, act_call, 0 },
	{ "take out the dead", prepare_death, act_death, 0 },
	{ "remove a topic", prepare_removal, act_call, 0 },
	{ "move a topic", prepare_move, act_call, MAY_DISCARD },
	{ "evict", prepare_eviction, act_call, 0 },
	{ "void claims without owner", prepare_ownerless, act_report, CLAIMS_STAY },
	{ "free an arena of the dead", prepare_orphan, act_turn, 0 },
	{ "adopt", prepare_adoption, act_adoption, 0 },
};

static int live(void *arg)
{
	const struct scene *scene = arg;

	worker_begin(below);
	worker_serve();
	worker_listen();
	scene->prepare();
	STEPPER_MARK();
	scene->act();
	STEPPER_MARK();
	return 0;
}

static void run(const struct scene *scene)
{
	struct steps_tally tally = { .scenes = 1 };
	struct stepper s;
	enum stepper_at at;

	worker_set_available(UINT64_C(1) << 30);
	make_slabs();
	stepper_fork(&s, live, (void *)(uintptr_t)scene);
	stepper_go(&s);
	watch_all();
	succeed(scene);
	while ((at = stepper_step(&s)) != STEPPER_MARKED) {
		tally.instructions++;
		if (at == STEPPER_ENDED)
			FAIL("%s: the worker ended: %d", scene->name, s.ended);
		if (watch_look(&watch)) {
			if (getenv("SHMQ_STEPS"))
				NOTE("%s, instruction %llu: %s", scene->name,
				     (unsigned long long)s.steps, watch.label);
			tally.states++;
			tally.deaths++;
			succeed(scene);
		}
		if (at == STEPPER_ASLEEP && stepper_await(&s) == STEPPER_ENDED)
			FAIL("%s: the worker ended: %d", scene->name, s.ended);
	}
	stepper_kill(&s);
	unwatch_all();
	close_slabs();
	steps_report(scene->name, &tally);
}

TEST_WITHIN(a_control_worker_may_die_at_any_instruction, 600)
{
	uint64_t random = steps_seed();

	stepper_need();
	for (size_t i = 0; i < COUNT(scenes); i++)
		/* Under a sanitizer there are more instructions, and each takes longer. */
		if (steps_is_torture() ||
		    fake_random(&random) % (5 * (unsigned)test_slowdown()) == 0)
			run(&scenes[i]);
	place_destroy(worker_place);
}
