/* SPDX-License-Identifier: MIT
 *
 * The registry without its worker: what is handed out, and what a second
 * one makes of the slabs that a first one left at an awkward moment.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "registry.h"
#include "tap.h"

static struct place *place;
static struct link_slab slabs[LINK_SLABS_MAX];
static struct registry *reg;

/* ---- scenery --------------------------------------------------------- */

/* A registry takes its descriptors over; those in slabs stay ours. */
static struct registry *open_again(void)
{
	struct link_slab copy[LINK_SLABS_MAX];
	struct shmq__why why = { "" };
	struct registry *r = NULL;
	unsigned i;

	memcpy(copy, slabs, sizeof(copy));
	for (i = 0; i < LINK_SLABS_MAX; i++)
		if (copy[i].fd >= 0)
			CHECK_GE(copy[i].fd = fcntl(slabs[i].fd, F_DUPFD_CLOEXEC, 0), 0);
	CHECK_OK(registry_open(place, copy, "unit", &r, &why));
	return r;
}

static void begin(void)
{
	unsigned count, i;

	CHECK_OK(place_create(NULL, NULL, &place, NULL));
	count = registry_slabs_wanted(0, slabs);
	for (i = 0; i < count; i++)
		CHECK_GE(slabs[i].fd = registry_make_slab(i, &slabs[i]), 0);
	reg = open_again();
}

static void end(void)
{
	unsigned i;

	registry_close(reg);
	for (i = 0; i < LINK_SLABS_MAX; i++)
		if (slabs[i].fd >= 0)
			close(slabs[i].fd);
	place_destroy(place);
}

/* What a SIGKILL of the worker and a new one come to. */
static struct registry_found replace(void)
{
	struct registry_found found;

	registry_close(reg);
	reg = open_again();
	CHECK_OK(registry_adopt(reg, &found));
	registry_give_back(reg);
	return found;
}

static void init_rings(const struct topic *t, void *mem)
{
	struct lay_geometry geo;
	uint32_t p;

	CHECK_OK(shmq__layout_geometry(t->rec, &geo));
	for (p = 0; p < geo.partitions; p++)
		shmq__layout_init_ring((char *)mem + (geo.partitions - 1 - p) * geo.ring_bytes,
				       LAY_VERSION, &geo, t->rec->id, p, 0);
}

/* A topic in state CREATING with small, initialised rings. */
static struct topic *begin_topic(const char *name, uint32_t partitions)
{
	struct lay_topic shape = { .depth = 1024,
				   .slot_bytes = 64,
				   .inline_bytes = 48,
				   .max_bytes = 48,
				   .partitions = partitions,
				   .mode = SHMQ_SHARED,
				   .policy = SHMQ_BLOCK,
				   .stall = SHMQ_STALL_KILL,
				   .wait = SHMQ_WAIT_ADAPTIVE,
				   .page_shift = 12 };
	struct registry_range ring;
	struct topic *t;
	void *mem;

	shape.ring_bytes = shmq__layout_ring_bytes(shape.depth, shape.slot_bytes, 12);
	CHECK_OK(registry_take_range(reg, (unsigned)registry_find_slab(reg, LAY_SLAB_RING, 12),
				     SHMQ_NODE_ANY, partitions * shape.ring_bytes, &ring, NULL));
	ring.base_seq = 0;
	CHECK_OK(registry_add_topic(reg, &shape, name, &ring, &t, NULL));
	CHECK_OK(registry_map(reg, &ring, &mem));
	init_rings(t, mem);
	registry_unmap(reg, &ring, mem);
	return t;
}

static struct topic *make_topic(const char *name, uint32_t partitions)
{
	struct topic *t = begin_topic(name, partitions);

	registry_publish_topic(reg, t);
	return t;
}

static void remove_topic(struct topic *t)
{
	struct registry_range ring;

	store_release(&t->rec->state, LAY_TOPIC_ENDED);
	registry_forget_name(reg, t);
	registry_drop_topic(reg, t, &ring);
	registry_free_range(reg, &ring);
}

static struct peer *make_peer(uint64_t nonce)
{
	struct registry_client client = { .pid = (uint32_t)getpid(),
					  .uid = geteuid(),
					  .entries = registry_entries_of(reg, geteuid()),
					  .nonce = nonce,
					  .name = "unit" };
	struct peer *p;

	CHECK_OK(registry_add_peer(reg, &client, &p, NULL));
	return p;
}

static struct handle *make_handle(struct topic *t, struct peer *p, uint64_t token, uint32_t arena)
{
	struct registry_member what = {
		.role = SHMQ_ROLE_PUBLISHER, .partition = -1, .arena = arena, .token = token
	};
	struct handle *h;

	CHECK_OK(registry_attach(reg, t, NULL));
	CHECK_OK(registry_add_handle(reg, t, p, &what, &h, NULL));
	return h;
}

static struct handle *open_handle(struct topic *t, struct peer *p, uint64_t token, uint32_t arena)
{
	struct handle *h = make_handle(t, p, token, arena);

	CHECK_OK(registry_attach(reg, t, NULL));
	shmq__topic_publish_member(t->attached, h->member, LAY_MEMBER_PUBLISHER);
	return h;
}

static void close_handle(struct handle *h)
{
	CHECK_OK(registry_attach(reg, h->topic, NULL));
	shmq__topic_remove_member(h->topic->attached, h->member);
	registry_drop_handle(reg, h);
}

static uint64_t page_of(const struct handle *h)
{
	return LAY_REF_OFF(h->member->entry) / LAY_PAGE;
}

/* ---- fresh ----------------------------------------------------------- */

TEST(fresh_registry_describes_its_slabs)
{
	unsigned i;

	begin();
	CHECK_OK(shmq__layout_check_registry(reg->head));
	CHECK_STR(reg->head->name, "unit");
	CHECK_NE(reg->head->nonce, 0);
	for (i = 0; i < LINK_SLABS_MAX && slabs[i].fd >= 0; i++)
		CHECK_EQ(shmq__slabs_slab(reg->slabs, i)->kind, slabs[i].kind);
	CHECK_EQ(load_relaxed(&reg->head->slab_count), i);
	end();
}

TEST(topic_is_found_by_name_until_its_name_is_forgotten)
{
	struct topic *t, *again;

	begin();
	t = make_topic("a.b", 1);
	CHECK(registry_find(reg, "a.b") == t);
	CHECK(!registry_find(reg, "a"));
	CHECK_EQ(load_relaxed(&reg->head->topics_live), 1);
	store_release(&t->rec->state, LAY_TOPIC_ENDED);
	registry_forget_name(reg, t);
	CHECK(!registry_find(reg, "a.b"));
	CHECK_EQ(load_relaxed(&reg->head->topics_live), 0);
	again = make_topic("a.b", 1);
	CHECK(registry_find(reg, "a.b") == again);
	CHECK_NE(again->rec->id, t->rec->id);
	end();
}

TEST(thousands_of_names_are_found)
{
	char name[32];
	unsigned i;

	begin();
	for (i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "topic.%u", i);
		make_topic(name, 1);
	}
	for (i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "topic.%u", i);
		CHECK(registry_find(reg, name));
		CHECK_STR(registry_find(reg, name)->rec->name, name);
	}
	CHECK_EQ(replace().topics, 3000);
	for (i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "topic.%u", i);
		CHECK(registry_find(reg, name));
	}
	end();
}

TEST(rings_of_one_topic_lie_side_by_side_downwards)
{
	struct lay_partition *part;
	struct topic *t;
	uint32_t p;

	begin();
	t = make_topic("many", 7);
	part = shmq__slabs_at(reg->slabs, t->rec->partition_array, 7 * sizeof(*part));
	for (p = 1; p < 7; p++)
		CHECK_EQ(part[p].ring + t->rec->ring_bytes, part[p - 1].ring);
	CHECK_OK(registry_attach(reg, t, NULL));
	for (p = 0; p < 7; p++)
		CHECK_EQ(t->attached->ring[p].mem->partition, p);
	end();
}

TEST(memory_of_removed_topics_is_used_again)
{
	uint64_t first, second;
	struct topic *t;
	unsigned i;

	begin();
	t = make_topic("a", 4);
	first = registry_rings_of(reg, t->rec).ref;
	remove_topic(t);
	for (i = 0; i < 100; i++)
		remove_topic(make_topic("a", 4));
	t = make_topic("b", 4);
	second = registry_rings_of(reg, t->rec).ref;
	CHECK_EQ(first, second);
	CHECK_EQ(t->index, 0);
	end();
}

/* ---- clients and handles --------------------------------------------- */

TEST(client_id_comes_back_with_another_generation)
{
	unsigned ids = 0, first;
	uint64_t gen;
	struct peer *p;

	begin();
	p = make_peer(1);
	first = p->id;
	gen = p->gen;
	registry_drop_peer(reg, p);
	CHECK_EQ(load_relaxed(&shmq__slabs_client(reg->slabs, first)->gen), gen + 1);
	do {
		p = make_peer(2 + ids);
		if (p->id == first)
			break;
		registry_drop_peer(reg, p);
	} while (++ids < 1000);
	CHECK_EQ(p->id, first);
	CHECK_GT(ids, 10); /* it rested */
	CHECK_EQ(p->gen, gen + 1);
	end();
}

TEST(no_two_clients_share_an_entry_page)
{
	struct handle *a, *b, *c;
	struct topic *t;

	begin();
	t = make_topic("t", 3);
	a = open_handle(t, make_peer(1), 1, 0);
	b = open_handle(t, make_peer(2), 1, 0);
	c = open_handle(t, a->peer, 2, 0);
	CHECK_NE(page_of(a), page_of(b));
	CHECK_EQ(page_of(a), page_of(c));
	CHECK_EQ(LAY_REF_OFF(c->member->entry),
		 LAY_REF_OFF(a->member->entry) + 3 * sizeof(struct lay_entry));
	end();
}

TEST(entries_of_many_partitions_are_consecutive)
{
	struct lay_entry *e;
	struct handle *h, *small;
	struct topic *t;
	uint32_t i;

	begin();
	t = make_topic("wide", 25);
	small = open_handle(t, make_peer(1), 1, 0);
	h = open_handle(t, small->peer, 2, 0); /* 25 + 25 do not fit one page */
	CHECK_NE(page_of(h), page_of(small));
	t = make_topic("wider", 33);
	h = open_handle(t, small->peer, 3, 0);
	CHECK_EQ(LAY_REF_OFF(h->member->entry) % LAY_PAGE, 0);
	e = shmq__slabs_at(reg->slabs, h->member->entry, 33 * sizeof(*e));
	for (i = 0; i < 33; i++)
		CHECK_EQ(load_relaxed(&e[i].gen), h->member->entry_gen);
	CHECK_EQ(replace().handles, 3);
	end();
}

TEST(closed_handle_frees_its_entries_for_the_same_client)
{
	uint64_t at;
	struct handle *h;
	struct topic *t;
	struct peer *p;
	unsigned i;

	begin();
	t = make_topic("t", 1);
	p = make_peer(1);
	h = open_handle(t, p, 1, 0);
	at = LAY_REF_OFF(h->member->entry);
	for (i = 2; i < 200; i++) {
		close_handle(h);
		h = open_handle(t, p, i, 0);
		CHECK_EQ(LAY_REF_OFF(h->member->entry), at);
	}
	CHECK(registry_find_handle(reg, p, 199) == h);
	CHECK(!registry_find_handle(reg, p, 198));
	end();
}

TEST(roster_grows_past_one_chunk)
{
	struct shmq__roster_iter it = { 0 };
	unsigned i, seen = 0;
	struct topic *t;
	struct peer *p;

	begin();
	t = make_topic("busy", 1);
	p = make_peer(1);
	for (i = 0; i < 200; i++)
		open_handle(t, p, i + 1, 0);
	CHECK_OK(registry_attach(reg, t, NULL));
	while (shmq__topic_next_member(t->attached, &it))
		seen++;
	CHECK_EQ(seen, 200);
	CHECK_EQ(replace().handles, 200);
	end();
}

/* ---- adoption -------------------------------------------------------- */

TEST(adoption_finds_what_was_there)
{
	struct registry_found found;
	struct topic *t;
	struct handle *h;
	uint64_t nonce, entry;

	begin();
	nonce = reg->head->nonce;
	make_topic("one", 1);
	t = make_topic("two", 40);
	h = open_handle(t, make_peer(7), 77, 0);
	entry = h->member->entry;
	open_handle(t, h->peer, 78, 0)->member->flags = LAY_MEMBER_FENCES;
	found = replace();
	CHECK_EQ(found.topics, 2);
	CHECK_EQ(found.clients, 1);
	CHECK_EQ(found.handles, 2);
	CHECK_EQ(found.discarded, 0);
	CHECK_EQ(reg->head->nonce, nonce);
	t = registry_find(reg, "two");
	CHECK(t);
	CHECK_EQ(load_relaxed(&t->rec->publishers), 2);
	CHECK_EQ(t->unfenced, 1);
	h = registry_find_handle(reg, LIST_FIRST(&t->handles)->peer, 77);
	CHECK(h);
	CHECK_EQ(h->member->entry, entry);
	end();
}

TEST(adopted_memory_is_not_handed_out_again)
{
	struct registry_range old, fresh;
	struct handle *h;
	struct topic *t;
	uint64_t page;

	begin();
	t = make_topic("old", 5);
	h = open_handle(t, make_peer(1), 1, 0);
	page = page_of(h);
	replace();
	old = registry_rings_of(reg, registry_find(reg, "old")->rec);
	t = make_topic("new", 5);
	fresh = registry_rings_of(reg, t->rec);
	CHECK(fresh.ref >= old.ref + old.bytes || fresh.ref + fresh.bytes <= old.ref);
	CHECK_NE(page_of(open_handle(t, make_peer(2), 1, 0)), page);
	CHECK_EQ(page_of(open_handle(t, LIST_FIRST(&registry_find(reg, "old")->handles)->peer, 2,
				     0)),
		 page);
	end();
}

TEST(topic_killed_while_creating_is_discarded)
{
	struct registry_found found;

	begin();
	begin_topic("half", 3);
	found = replace();
	CHECK_EQ(found.topics, 0);
	CHECK_EQ(found.discarded, 1);
	CHECK(!registry_find(reg, "half"));
	CHECK_EQ(make_topic("half", 3)->index, 0);
	end();
}

TEST(handle_killed_before_it_was_published_is_nobody)
{
	struct registry_found found;
	struct handle *h;
	uint64_t at;

	begin();
	h = make_handle(make_topic("t", 1), make_peer(1), 1, 0);
	at = h->member->entry;
	found = replace();
	CHECK_EQ(found.handles, 0);
	CHECK_EQ(found.clients, 1);
	CHECK_EQ(open_handle(registry_find(reg, "t"), LIST_FIRST(&reg->peers), 2, 0)->member->entry,
		 at);
	end();
}

TEST(member_of_another_generation_is_dropped)
{
	struct handle *h;

	begin();
	h = open_handle(make_topic("t", 1), make_peer(1), 1, 0);
	store_release(&h->peer->rec->gen, h->peer->gen + 1);
	CHECK_EQ(replace().handles, 0);
	CHECK(LIST_EMPTY(&registry_find(reg, "t")->handles));
	end();
}

static uint32_t make_arena(struct topic *t, struct peer *p, uint64_t bytes)
{
	struct registry_range range;
	uint32_t id;

	CHECK_OK(registry_take_range(reg, (unsigned)registry_find_slab(reg, LAY_SLAB_ARENA, 12),
				     SHMQ_NODE_ANY, bytes, &range, NULL));
	CHECK_OK(registry_add_arena(reg, &range, t, p, &id, NULL));
	return id;
}

TEST(arena_without_a_member_is_an_orphan)
{
	uint32_t used, lost, big;
	struct topic *t;
	struct peer *p;

	begin();
	t = make_topic("t", 1);
	p = make_peer(1);
	used = make_arena(t, p, 1 << 16);
	lost = make_arena(t, p, 1 << 16);
	big = make_arena(t, p, 8 << 20);
	open_handle(t, p, 1, used + 1);
	CHECK_EQ(replace().arenas, 3);
	CHECK_EQ(load_relaxed(&shmq__slabs_arena(reg->slabs, used)->state), LAY_ARENA_OWNED);
	CHECK_EQ(load_relaxed(&shmq__slabs_arena(reg->slabs, lost)->state), LAY_ARENA_ORPHAN);
	CHECK_EQ(load_relaxed(&shmq__slabs_arena(reg->slabs, big)->state), LAY_ARENA_ORPHAN);
	end();
}

/* A worker was killed while it closed a handle: until that is done again, the
 * arena is nobody else's. */
TEST(arena_of_a_handle_that_was_being_closed_is_no_orphan)
{
	struct topic *t;
	struct peer *p;
	uint32_t id;

	begin();
	t = make_topic("t", 1);
	p = make_peer(1);
	id = make_arena(t, p, 1 << 16);
	open_handle(t, p, 1, id + 1);
	store_release(&shmq__slabs_arena(reg->slabs, id)->state, LAY_ARENA_ORPHAN);
	CHECK_EQ(replace().arenas, 1);
	CHECK_EQ(load_relaxed(&shmq__slabs_arena(reg->slabs, id)->state), LAY_ARENA_OWNED);
	end();
}

TEST(arena_of_a_topic_that_is_gone_is_free)
{
	struct topic *t;
	uint64_t gen;
	uint32_t id;

	begin();
	t = begin_topic("half", 1);
	id = make_arena(t, make_peer(1), 1 << 16);
	gen = load_relaxed(&shmq__slabs_arena(reg->slabs, id)->gen);
	CHECK_EQ(replace().arenas, 0);
	CHECK_EQ(load_relaxed(&shmq__slabs_arena(reg->slabs, id)->state), LAY_ARENA_FREE);
	CHECK_EQ(make_arena(make_topic("t", 1), LIST_FIRST(&reg->peers), 1 << 16), id);
	CHECK_EQ(load_relaxed(&shmq__slabs_arena(reg->slabs, id)->gen), gen + 1);
	end();
}

static uint64_t removed_by(uint64_t nonce)
{
	struct peer *p;

	LIST_FOREACH (p, &reg->peers, link)
		if (load_relaxed(&p->rec->nonce) == nonce)
			return p->removed;
	FAIL("no client has that nonce");
	return 0;
}

TEST(removal_is_remembered_by_the_next_worker)
{
	static const uint64_t tokens[] = { 6, 8, 7 };
	struct topic *held = NULL;

	begin();
	make_peer(5);
	make_peer(6);
	for (size_t i = 0; i < 3; i++) {
		struct topic *t = make_topic("t", 1);

		t->rec->creator_nonce = 5;
		t->rec->creator_token = tokens[i];
		if (i == 1) { /* somebody still has it */
			store_release(&t->rec->state, LAY_TOPIC_ENDED);
			held = t;
			registry_forget_name(reg, t);
		} else {
			remove_topic(t);
		}
	}
	CHECK(held);
	replace();
	CHECK_EQ(removed_by(5), 8);
	CHECK_EQ(removed_by(6), 0);
	end();
}

/* ---- killed between two stores of a change that clients are told of -------- */

/* A publisher lists the roster again only when the epoch moves, so a member
 * that came or went without it would not gate, or gate for ever. */
TEST(a_roster_whose_change_was_not_told_is_told_of_by_the_next_worker)
{
	struct topic *t;
	struct handle *h;
	uint32_t epoch;

	begin();
	t = make_topic("t", 1);
	open_handle(t, make_peer(1), 1, 0);
	epoch = load_relaxed(&t->rec->epoch);
	h = make_handle(t, make_peer(2), 1, 0);
	store_release(&h->member->state, LAY_MEMBER_SUBSCRIBER);
	replace();
	t = registry_find(reg, "t");
	CHECK_EQ(load_relaxed(&t->rec->subscribers), 1);
	CHECK_NE(load_relaxed(&t->rec->epoch), epoch);
	end();
}

TEST(a_topic_whose_end_was_begun_ends_for_its_handles)
{
	struct handle *h;
	struct topic *t;
	uint32_t p;

	begin();
	t = make_topic("t", 3);
	open_handle(t, make_peer(1), 1, 0);
	store_release(&t->rec->state, LAY_TOPIC_ENDED);
	store_release(&t->attached->ring[2].mem->state, LAY_RING_ENDED);
	replace();
	CHECK(!registry_find(reg, "t"));
	h = LIST_FIRST(&LIST_FIRST(&reg->peers)->handles);
	CHECK_OK(registry_attach(reg, h->topic, NULL));
	for (p = 0; p < 3; p++)
		CHECK_EQ(load_relaxed(&h->topic->attached->ring[p].mem->state), LAY_RING_ENDED);
	end();
}

TEST(a_topic_that_had_moved_stays_moved_for_the_handles_of_its_old_rings)
{
	struct topic *t;
	struct handle *h;

	begin();
	t = make_topic("t", 2);
	open_handle(t, make_peer(1), 1, 0);
	store_release(&t->attached->ring[0].mem->state, LAY_RING_MOVING);
	store_release(&t->attached->ring[1].mem->state, LAY_RING_MOVED);
	store_release(&t->rec->state, LAY_TOPIC_ENDED);
	replace();
	h = LIST_FIRST(&LIST_FIRST(&reg->peers)->handles);
	CHECK_OK(registry_attach(reg, h->topic, NULL));
	CHECK_EQ(load_relaxed(&h->topic->attached->ring[0].mem->state), LAY_RING_MOVED);
	CHECK_EQ(load_relaxed(&h->topic->attached->ring[1].mem->state), LAY_RING_MOVED);
	end();
}

TEST(a_topic_whose_move_was_begun_goes_on_in_its_rings)
{
	struct topic *t;
	uint32_t p;

	begin();
	t = make_topic("t", 3);
	open_handle(t, make_peer(1), 1, 0);
	store_release(&t->attached->ring[1].mem->state, LAY_RING_MOVING);
	store_release(&t->attached->ring[2].mem->state, LAY_RING_MOVED);
	replace();
	t = registry_find(reg, "t");
	CHECK_OK(registry_attach(reg, t, NULL));
	for (p = 0; p < 3; p++)
		CHECK_EQ(load_relaxed(&t->attached->ring[p].mem->state), LAY_RING_LIVE);
	end();
}

TEST(what_nobody_refers_to_is_given_back)
{
	uint64_t before, after;
	char name[16];
	unsigned i;

	begin();
	for (i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		begin_topic(name, 4);
	}
	registry_count_bytes(reg);
	before = load_relaxed(&reg->head->bytes_used);
	CHECK_EQ(replace().discarded, 300);
	after = load_relaxed(&reg->head->bytes_used);
	CHECK_GT(before, 80u << 20);
	CHECK_LT(after, 1u << 20);
	end();
}
