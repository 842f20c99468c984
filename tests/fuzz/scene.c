/* SPDX-License-Identifier: MIT */
#include "scene.h"

#include "memory.h"
#include "shmem.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { DEPTH = FAKE_DEPTH, ARENA_BYTES = 64 << 10, KEYS = 16, SAVED_MAX = 12 };

/* Memory that is as it was at the start of each input. */
struct saved {
	void *mem, *copy;
	size_t bytes;
};

struct stage {
	struct scene scene; /* first: scene_end() converts */
	struct fake_options options;
	struct bus_guard guard;
	enum shmq__fence fence; /* short ways are for light ones */

	struct saved saved[SAVED_MAX];
	unsigned saved_count;
	void *arenas;
	lay_ref entry[2]; /* of subscriber and publisher */
	uint64_t entry_gen[2];
	uint32_t arena;
};

static struct stage *stages[KEYS];

/* ---- once for each kind of topic -------------------------------------------- */

static void save(struct stage *s, void *mem, size_t bytes)
{
	struct saved *saved = &s->saved[s->saved_count++];

	CHECK_LE(s->saved_count, SAVED_MAX);
	*saved = (struct saved){ .mem = mem, .copy = malloc(bytes), .bytes = bytes };
	CHECK(saved->copy);
	memcpy(saved->copy, mem, bytes);
}

static void *in_registry(struct stage *s, uint64_t off)
{
	return (char *)s->scene.f->registry + off;
}

static void record(struct stage *s, uint64_t off, size_t bytes)
{
	struct scene *c = &s->scene;

	save(s, in_registry(s, off), bytes);
	c->records[c->records_count++] = (struct area){ in_registry(s, off), bytes };
}

static void *at(struct stage *s, lay_ref ref)
{
	void *mem = shmq__slabs_at(s->scene.f->slabs, ref, LAY_PAGE);

	CHECK(mem);
	return mem;
}

/* What a real client has besides: descriptors for writing. */
static void be_client(struct stage *s)
{
	static const unsigned written[] = { FAKE_ENTRIES, FAKE_RINGS, FAKE_ARENAS };
	struct scene *c = &s->scene;
	struct shmq__topic *topic = fake_attach_readonly(c->f, &c->bus.slabs);
	unsigned i;

	shmq__topic_detach(topic);
	for (i = 0; i < 3; i++) {
		int fd = shmq__slabs_fd(c->f->slabs, written[i], SHMQ__SLAB_WRITE);

		CHECK_OK(shmq__slabs_add(c->bus.slabs, written[i], shmq__shmem_reopen_writable(fd),
					 SHMQ__SLAB_WRITE));
	}
	store_relaxed(&s->guard.alive, 1);
	c->bus.guard = &s->guard;
	c->bus.sock = c->bus.event_sock = c->bus.poll_fd = c->bus.kick_fd = -1;
	c->bus.client = 1;
	c->bus.timeout_ns = 1000000000;
}

static void list_areas(struct stage *s)
{
	struct scene *c = &s->scene;
	struct fake *f = c->f;
	struct area *out = c->published;
	uint32_t p;

	for (p = 0; p < f->geo.partitions; p++) {
		char *ring = (char *)f->topic->ring[p].mem;

		*out++ = (struct area){ ring, LAY_RING_HEADER_BYTES };
		*out++ = (struct area){ ring + LAY_RING_HEADER_BYTES, 32 * f->geo.slot_bytes };
	}
	if (s->options.arena_bytes) {
		CHECK_OK(shmq__slabs_map(f->slabs, LAY_REF(FAKE_ARENAS, 0), 2 * ARENA_BYTES,
					 SHMQ__SLAB_WRITE, &s->arenas));
		*out++ = (struct area){ s->arenas, 2 * ARENA_BYTES };
	}
	c->published_count = (unsigned)(out - c->published);
	out = c->shared;
	*out++ = (struct area){ f->topic->ring[0].bells,
				f->geo.partitions * sizeof(struct lay_bells) };
	*out++ = (struct area){ fake_entry(f, c->peer_sub, 0),
				f->geo.partitions * sizeof(struct lay_entry) };
	*out++ = (struct area){ fake_entry(f, c->peer_pub, 0),
				f->geo.partitions * sizeof(struct lay_entry) };
	c->shared_count = (unsigned)(out - c->shared);
}

static struct stage *set_up(unsigned key)
{
	struct stage *s = calloc(1, sizeof(*s));
	struct scene *c = &s->scene;
	struct fake *f;

	CHECK(s);
	s->options =
		(struct fake_options){ .mode = key & 1 ? SHMQ_SHARED : SHMQ_EXCLUSIVE,
				       .policy = (enum shmq_policy)(SHMQ_BLOCK + (key >> 1 & 3)) };
	if (key & 8) {
		s->options.slot_bytes = 128;
		s->options.partitions = 2;
		s->options.flags = SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME;
		s->options.max_bytes = 5000;
		s->options.arena_bytes = ARENA_BYTES;
	}
	c->f = f = fake_new(&s->options);
	f->rec->block_timeout_ns = 1000000;
	fake_client(f, getpid());
	fake_client(f, getpid());
	c->sub = fake_subscriber(f, 1, SHMQ_FROM_OLDEST, 0);
	c->pub = fake_publisher(f, 1);
	c->peer_sub = fake_subscriber(f, 2, SHMQ_FROM_OLDEST, 0);
	c->peer_pub = fake_publisher(f, 2);
	if (s->options.arena_bytes) {
		s->arena = fake_arena(f, c->pub, ARENA_BYTES) + 1;
		c->pub->arena = s->arena;
		c->peer_pub->arena = fake_arena(f, c->peer_pub, ARENA_BYTES) + 1;
	}
	store_relaxed(&f->rec->publishers, 2);
	store_relaxed(&f->rec->subscribers, 2);
	s->entry[0] = c->sub->entry;
	s->entry[1] = c->pub->entry;
	s->entry_gen[0] = c->sub->entry_gen;
	s->entry_gen[1] = c->pub->entry_gen;
	list_areas(s);
	record(s, 0, sizeof(struct lay_registry));
	record(s, LAY_CLIENTS_OFF, 4 * sizeof(struct lay_client));
	record(s, LAY_SLABS_OFF, (FAKE_SLABS + 1) * sizeof(struct lay_slab));
	record(s, LAY_ARENAS_OFF, 4 * sizeof(struct lay_arena));
	record(s, LAY_TOPICS_OFF, 264); /* what is in use of it */
	record(s, LAY_REF_OFF(f->rec->partition_array),
	       f->geo.partitions * sizeof(struct lay_partition));
	record(s, LAY_REF_OFF(f->rec->roster), 6 * sizeof(struct lay_member));
	save(s, at(s, LAY_REF(FAKE_ENTRIES, 0)), LAY_PAGE);
	save(s, at(s, LAY_REF(FAKE_BELLS, 0)), LAY_PAGE);
	be_client(s);
	return s;
}

/* ---- for each input ---------------------------------------------------------- */

static void place(struct stage *s, const struct lay_member *m)
{
	uint32_t p;

	for (p = 0; p < s->scene.f->geo.partitions; p++)
		store_relaxed(&fake_entry(s->scene.f, (struct lay_member *)(uintptr_t)m, p)->pos,
			      s->scene.base);
}

static void restore(struct stage *s)
{
	struct fake *f = s->scene.f;
	unsigned i;
	uint32_t p;

	for (i = 0; i < s->saved_count; i++)
		memcpy(s->saved[i].mem, s->saved[i].copy, s->saved[i].bytes);
	for (p = 0; p < f->geo.partitions; p++) {
		struct lay_ring *ring = f->topic->ring[p].mem;

		memset((char *)ring + LAY_RING_HEADER_BYTES, 0, f->geo.depth * f->geo.slot_bytes);
		shmq__layout_init_ring(ring, LAY_VERSION, &f->geo, f->topic->id, p, s->scene.base);
	}
	place(s, s->scene.sub);
	place(s, s->scene.pub);
	place(s, s->scene.peer_sub);
	place(s, s->scene.peer_pub);
}

/* What the last thousands have touched of the sparse slabs is given back. */
static void forget_strays(struct stage *s)
{
	static unsigned turn;
	int fd = shmq__slabs_fd(s->scene.f->slabs, FAKE_REGISTRY, SHMQ__SLAB_WRITE);
	uint64_t heap = s->scene.f->heap;

	if (++turn % 4096)
		return;
	shmq__shmem_punch(fd, heap, LAY_REGISTRY_BYTES - heap);
	shmq__shmem_punch(fd, LAY_ARENAS_OFF + LAY_PAGE,
			  LAY_TOPICS_OFF - LAY_ARENAS_OFF - LAY_PAGE);
	fd = shmq__slabs_fd(s->scene.f->slabs, FAKE_ENTRIES, SHMQ__SLAB_WRITE);
	shmq__shmem_punch(fd, LAY_PAGE, LAY_ENTRY_SLAB_BYTES - LAY_PAGE);
}

struct scene *scene_begin(struct bites *in)
{
	static const uint64_t bases[] = { 0, UINT64_C(0) - 1030, FAKE_LAP_WRAP - 1,
					  (UINT64_C(1) << 63) - 700 };
	unsigned key = (unsigned)bite_below(in, KEYS), how = (unsigned)bite(in, 1);
	struct stage *s = stages[key];

	if (!s) {
		fuzz_simulate_time();
		guard_maps();
		s = stages[key] = set_up(key);
	}
	forget_strays(s);
	s->scene.base = bases[how % 4];
	s->fence = how & 4 ? SHMQ__FENCE_FULL : SHMQ__FENCE_LIGHT;
	restore(s);
	return &s->scene;
}

void scene_end(struct scene *c)
{
	noise_between_steps(NULL, 0, 0);
	strike_between_steps(NULL, NULL);
	c->bus.to_close_count = 0; /* of handles; nobody hears of it */
}

void scene_leave(void)
{
	struct stage *s;
	unsigned key;

	for (key = 0; key < KEYS; key++) {
		s = stages[key];
		if (!s)
			continue;
		while (s->saved_count)
			free(s->saved[--s->saved_count].copy);
		shmq__slabs_unmap(s->scene.f->slabs, LAY_REF(FAKE_ARENAS, 0), 2 * ARENA_BYTES,
				  s->arenas);
		shmq__slabs_destroy(s->scene.bus.slabs);
		free(s->scene.bus.to_close);
		fake_free(s->scene.f);
		free(s);
		stages[key] = NULL;
	}
}

void scene_craft_slot(struct scene *c, struct bites *in)
{
	static const uint16_t flags[] = { 0,
					  SHMQ_MSG_META,
					  SHMQ_MSG_ARENA,
					  SHMQ_MSG_BATCH,
					  SHMQ_MSG_BATCH | SHMQ_MSG_ARENA,
					  SHMQ_MSG_ARENA | SHMQ_MSG_META,
					  SHMQ_MSG_BATCH | SHMQ_MSG_ARENA | SHMQ_MSG_META,
					  UINT16_MAX };
	struct lay_geometry *g = &c->f->geo;
	uint32_t p = (uint32_t)bite_below(in, g->partitions);
	uint64_t seq = c->base + bite_below(in, 32), lap = lay_lap(g, seq);
	struct lay_slot *s = lay_slot_at(c->f->topic->ring[p].mem, g, seq);
	unsigned how = (unsigned)bite(in, 1), owner = 1 + (how >> 6 & 1);
	char *payload = (char *)s + g->payload_off;
	unsigned state = how & 7;

	lap += (uint64_t)(how >> 3 & 3) * (how & 128 ? bite(in, 6) : 1);
	s->flags = flags[bite_below(in, sizeof(flags) / sizeof(flags[0]))];
	s->len = (uint32_t)(bite(in, 1) % 2 ? bite_edge(in) : bite_below(in, 8192));
	if (s->flags & SHMQ_MSG_BATCH) {
		struct lay_batch b = { .first_seq = seq - bite_below(in, 4),
				       .index = (uint32_t)bite_below(in, 4),
				       .count = (uint32_t)bite_below(in, 300) };

		memcpy(payload, &b, sizeof(b));
		payload += sizeof(b);
	}
	if (s->flags & SHMQ_MSG_ARENA) {
		struct lay_arena_ref ref = { .id = (uint32_t)bite_below(in, 3),
					     .gen = 700,
					     .off = bite_below(in, ARENA_BYTES + 128) };

		ref.gen += ref.id;
		memcpy(payload, &ref, sizeof(ref));
	} else if (s->flags & SHMQ_MSG_META) {
		struct lay_meta meta = { (uint16_t)bite_below(in, 200),
					 (uint16_t)bite_below(in, 200) };

		memcpy(payload, &meta, sizeof(meta));
	}
	store_release(&s->ctrl, LAY_CTRL(lap, owner, state));
}

void scene_disturb(struct bites *in, const struct area *areas, unsigned count)
{
	struct noise noises[NOISES_MAX];
	unsigned n = 1 + (unsigned)bite_below(in, NOISES_MAX), i;

	for (i = 0; i < n; i++)
		noises[i] = bite_noise(in, areas, count);
	noise_between_steps(noises, n, (unsigned)bite(in, 1));
}

/* ---- instead of a supervisor --------------------------------------------------- */

__typeof__(shmq__bus_request) __wrap_shmq__bus_request;
__typeof__(shmq__bus_notify) __wrap_shmq__bus_notify;
__typeof__(shmq__bus_ready) __wrap_shmq__bus_ready;

static struct scene *scene_of(struct shmq_bus *bus)
{
	return (struct scene *)((char *)bus - offsetof(struct scene, bus));
}

int __wrap_shmq__bus_request(struct shmq_bus *bus, struct proto_request *req,
			     struct proto_reply *reply, struct shmq__why *why)
{
	struct scene *c = scene_of(bus);
	struct stage *s = (struct stage *)c;
	int is_publisher = req->open.role == SHMQ_ROLE_PUBLISHER;
	struct lay_entry *e = at(s, s->entry[is_publisher]);
	uint32_t p;

	if (req->op != PROTO_OPEN)
		return SHMQ_ENODAEMON;
	for (p = 0; p < c->f->geo.partitions; p++) /* who closed it left it far ahead */
		store_relaxed(&e[p].pos, c->base);
	memset(reply, 0, sizeof(*reply));
	reply->open.topic_id = c->f->topic->id;
	reply->open.entry = s->entry[is_publisher];
	reply->open.entry_gen = s->entry_gen[is_publisher];
	reply->open.arena = is_publisher ? s->arena : 0;
	return 0;
}

int __wrap_shmq__bus_notify(struct shmq_bus *bus, struct proto_request *req)
{
	return 0;
}

enum shmq__fence __wrap_shmq__bus_ready(struct shmq_bus *bus, unsigned topic_flags)
{
	return ((struct stage *)scene_of(bus))->fence;
}

int scene_publisher_lies(struct scene *c, struct bites *in, unsigned what)
{
	struct noise noise;

	switch (what) {
	case 0:
		noise = bite_noise(in, c->published, c->published_count);
		noise_make(&noise);
		break;
	case 1:
		noise = bite_noise(in, c->shared, c->shared_count);
		noise_make(&noise);
		break;
	case 2:
	case 3:
		scene_craft_slot(c, in);
		break;
	case 4:
		scene_disturb(in, c->published, c->published_count);
		break;
	}
	return what < 5;
}
