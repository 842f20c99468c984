/* SPDX-License-Identifier: MIT
 *
 * Cached limits against a subscriber that joins (C1 to C3, J1 to J3), rosters
 * that change while they are read (M1), and publishers that wait.
 */
#include "tap.h"
#include "world.h"

static shmq_pub *pub[2];
static struct world_reader reader[2];
static unsigned messages;

static void publish(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg, n;

	for (n = 0; n < messages; n++)
		WANT_EQ(world_publish(pub[who], who, n), 0);
}

/* Join whenever it comes; from then on nothing is missed. */
static void join(void *arg)
{
	struct world_reader r = { .any_first = 1 };

	r.sub = world_sub(weave_self(), (enum shmq_from)(uintptr_t)arg);
	weave_tell("joined at %llu", (unsigned long long)r.sub->lane[0].r.next);
	world_drain(&r, 2);
}

static void look(void *arg)
{
	struct world_reader r = reader[0];

	world_drain(&r, 2);
}

static void set_up(const struct world_options *o, unsigned publishers, unsigned each)
{
	unsigned i;

	world_new(o);
	messages = each;
	for (i = 0; i < publishers; i++)
		weave_spawn(i ? "second" : "first", publish, (void *)(uintptr_t)i);
	for (i = 0; i < publishers; i++)
		pub[i] = world_pub((int)i);
}

static void set_up_oldest(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3 }, 1, 3);
	weave_spawn("joiner", join, (void *)(uintptr_t)SHMQ_FROM_OLDEST);
}
SCENARIO(join_one, set_up_oldest, NULL);

static void set_up_two(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED }, 2, 3);
	weave_spawn("joiner", join, (void *)(uintptr_t)SHMQ_FROM_OLDEST);
}
SCENARIO(join_two, set_up_two, NULL);

/* Who closes gives back what it holds, and holds nobody up from then on. */
static void receive_and_close(void *arg)
{
	struct world_reader r = reader[0];

	world_receive_last(&r);
}

static void set_up_closes(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3 }, 1, 4);
	weave_spawn("reader", receive_and_close, NULL);
	reader[0] = (struct world_reader){ .sub = world_sub(1, SHMQ_FROM_LATEST) };
}
SCENARIO(reader_closes, set_up_closes, NULL);

/* There is a reader already, which leaves in the end. */
static void set_up_beside(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED }, 2, 2);
	weave_spawn("reader", look, NULL);
	weave_spawn("joiner", join, (void *)(uintptr_t)SHMQ_FROM_OLDEST);
	reader[0] = (struct world_reader){ .sub = world_sub(2, SHMQ_FROM_LATEST) };
}
SCENARIO(join_beside, set_up_beside, NULL);

static void leave(void *arg)
{
	struct world_reader r = reader[0];

	world_receive(&r, SHMQ_NOWAIT);
	shmq__topic_remove_member(world->topic, world_member(&r.sub->h));
}

/* Whoever waits for a reader goes on once it has left. */
static void set_up_leave(void)
{
	set_up(&(struct world_options){ .depth = 1, .base_seq = 3, .mode = SHMQ_SHARED }, 1, 3);
	weave_spawn("reader", leave, NULL);
	reader[0] = (struct world_reader){ .sub = world_sub(1, SHMQ_FROM_LATEST) };
}
SCENARIO(leave_waited_for, set_up_leave, NULL);

/* A member comes and another of the same place was there before. */
static void replace(void *arg)
{
	struct world_reader r = reader[0], next = { .any_first = 1 };

	world_receive(&r, SHMQ_NOWAIT);
	shmq__topic_remove_member(world->topic, world_member(&r.sub->h));
	world->members = (unsigned)r.sub->h.token - 1;
	next.sub = world_sub(weave_self(), SHMQ_FROM_OLDEST);
	world_drain(&next, 1);
}

static void set_up_replace(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED }, 1, 4);
	weave_spawn("reader", replace, NULL);
	reader[0] = (struct world_reader){ .sub = world_sub(1, SHMQ_FROM_LATEST) };
}
SCENARIO(replace_member, set_up_replace, NULL);

/* ---- the log's tailer gates too ------------------------------------- */

static shmq_au64 *log_written;

static void write_log(void *arg)
{
	struct ring_reader at = { .mem = world->ring, .geo = world->geo, .next = 3 };
	uint64_t words[WORLD_WORDS], word;
	unsigned n;

	for (n = 0; n < messages; n++, at.next++) {
		while (ring_look(&at, &word) != RING_MESSAGE)
			weave_idle();
		weave_read_late(words, lay_slot_at(at.mem, &at.geo, at.next) + 1, sizeof(words));
		store_release(log_written, at.next + 1); /* L1 */
		bell_look(&world->bells->credit, SHMQ__FENCE_LIGHT);
		weave_settle();
		WANT_EQ(words[0], world_value(0, n));
		WANT_EQ(words[WORLD_WORDS - 1], world_value(0, n));
	}
}

static void set_up_log(void)
{
	struct shmq__ring *ring;

	world_new(&(struct world_options){ .depth = 1, .base_seq = 3, .mode = SHMQ_SHARED });
	messages = 3;
	ring = &world->topic->ring[0];
	world->topic->geo.log = ring->geo.log = SHMQ_LOG_BLOCK;
	log_written = &ring->part->log_written;
	store_relaxed(log_written, 3);
	weave_spawn("publisher", publish, (void *)(uintptr_t)0);
	weave_spawn("tailer", write_log, NULL);
	pub[0] = world_pub(0);
}
SCENARIO(log_gates, set_up_log, NULL);

/* ---- rosters that change while they are walked ---------------------- */

enum { OLD_TOKEN = 99, NEW_TOKEN, OLD_GEN = 40, NEW_GEN, OLD_CLIENT = 4, NEW_CLIENT };

static struct lay_roster *more;

static void fill(struct lay_member *m, unsigned client, uint64_t token, unsigned entry,
		 uint64_t gen)
{
	struct lay_entry *e = &world->entry[entry];

	store_relaxed(&e->pos, world->ring->base_seq);
	store_release(&e->gen, gen);
	m->client = (uint16_t)client;
	m->client_gen = 1;
	m->token = token;
	m->entry = world_ref(e);
	m->entry_gen = gen;
	m->partition = -1;
}

/* A chunk that was another topic's is emptied, and somebody comes into it. */
static void add_chunk(void *arg)
{
	struct lay_member *m = &more->member[0];

	*m = (struct lay_member){ 0 };
	store_release(&world->roster->next, world_ref(more));
	fill(m, NEW_CLIENT, NEW_TOKEN, 2, NEW_GEN);
	shmq__topic_publish_member(world->topic, m, LAY_MEMBER_SUBSCRIBER);
}

/* Whom a walk comes by is there, and whole. */
static void walk(void *arg)
{
	struct shmq__roster_iter it;
	struct lay_member *m;
	unsigned n;

	for (n = 0; n < 2; n++) {
		it = (struct shmq__roster_iter){ 0 };
		while ((m = shmq__topic_next_member(world->topic, &it))) {
			WANT_EQ(m->token, NEW_TOKEN);
			WANT_EQ(m->client, NEW_CLIENT);
			WANT_EQ(m->entry_gen, NEW_GEN);
		}
	}
}

static void set_up_chunk(void)
{
	world_new(&(struct world_options){ .depth = 2, .base_seq = 3 });
	more = weave_alloc(sizeof(*more));
	weave_name(more, "chunk");
	fill(&more->member[0], OLD_CLIENT, OLD_TOKEN, 1, OLD_GEN);
	store_relaxed(&more->member[0].state, LAY_MEMBER_SUBSCRIBER);
	weave_spawn("supervisor", add_chunk, NULL);
	weave_spawn("walker", walk, NULL);
}
SCENARIO(chunk_used_again, set_up_chunk, NULL);

/* A subscriber that died is taken out and another comes in its place. */
static void replace_dead(void *arg)
{
	struct lay_member *m = &more->member[0];

	shmq__topic_remove_member(world->topic, m);
	fill(m, NEW_CLIENT, NEW_TOKEN, 2, NEW_GEN);
	shmq__topic_publish_member(world->topic, m, LAY_MEMBER_SUBSCRIBER);
}

/* Nobody takes the one for the other, and a cursor for that of the dead. */
static void drop_dead(void *arg)
{
	struct shmq__credit *c = &pub[0]->lane[0].credit;
	unsigned n, i;

	for (n = 0; n < 2; n++) {
		shmq__credit_gaters(c);
		shmq__credit_drop_dead(c);
		for (i = 0; i < c->count; i++)
			WANT(!c->gater[i].absent || c->gater[i].gen == OLD_GEN);
	}
}

static void set_up_dead(void)
{
	world_new(&(struct world_options){ .depth = 2, .base_seq = 3 });
	more = world->roster;
	fill(&more->member[0], OLD_CLIENT, OLD_TOKEN, 1, OLD_GEN);
	store_relaxed(&more->member[0].state, LAY_MEMBER_SUBSCRIBER);
	store_relaxed(&world->client[OLD_CLIENT].state, LAY_CLIENT_DEAD);
	world->members = 1;
	weave_spawn("publisher", drop_dead, NULL);
	weave_spawn("supervisor", replace_dead, NULL);
	pub[0] = world_pub(0);
}
SCENARIO(dead_reader_replaced, set_up_dead, NULL);

/* What who leaves has done is counted once. */
enum { SENT = 3, SENT_BEFORE = 5 };

static void leave_counted(void *arg)
{
	shmq__topic_remove_member(world->topic, &world->roster->member[0]);
}

static void sum_up(void *arg)
{
	uint64_t sum[LAY_TOTALS];

	if (shmq__topic_sum(world->topic, sum))
		WANT_EQ(sum[LAY_TOTAL_SENT], SENT + SENT_BEFORE);
}

static void set_up_totals(void)
{
	world_new(&(struct world_options){ .depth = 2, .base_seq = 3 });
	fill(&world->roster->member[0], OLD_CLIENT, OLD_TOKEN, 1, OLD_GEN);
	store_relaxed(&world->roster->member[0].state, LAY_MEMBER_PUBLISHER);
	store_relaxed(&world->entry[1].count, SENT);
	store_relaxed(&world->rec->total[LAY_TOTAL_SENT], SENT_BEFORE);
	weave_spawn("supervisor", leave_counted, NULL);
	weave_spawn("who sums up", sum_up, NULL);
}
SCENARIO(totals_summed_up, set_up_totals, NULL);

/* ---- who looks at a topic without having opened it ----------------------- */

/* The record of another topic is filled again, beside who asks for the new one. */
enum { NEW_ID = 2 };

static void create_topic(void *arg)
{
	struct lay_topic *rec = world->rec;
	struct lay_partition *part = arg;

	part->ring = world_ref(world->ring);
	part->bells = world_ref(world->bells);
	rec->depth = world->ring->depth;
	rec->slot_bytes = world->geo.slot_bytes;
	rec->partitions = 1;
	rec->ring_bytes = LAY_RING_HEADER_BYTES + rec->depth * rec->slot_bytes;
	rec->mode = SHMQ_SHARED;
	rec->policy = SHMQ_BLOCK;
	rec->partition_array = world_ref(part);
	rec->id = NEW_ID;
	store_release(&rec->state, LAY_TOPIC_LIVE); /* registry_publish_topic() */
}

static void ask_for_topic(void *arg)
{
	struct shmq__topic *t;
	int rc = shmq__topic_attach(world->topic->slabs, 0, NEW_ID, SHMQ__SLAB_READ, &t);

	WANT(!rc || rc == SHMQ_ENOTOPIC);
	if (rc)
		return;
	WANT_EQ(t->geo.depth, LAY_DEPTH_MIN);
	WANT(t->ring[0].mem == world->ring);
}

static void set_up_asked(void)
{
	world_new(&(struct world_options){ .depth = 1, .base_seq = 3 });
	world->ring->depth = LAY_DEPTH_MIN;
	world->ring->topic_id = NEW_ID;
	store_relaxed(&world->rec->state, LAY_TOPIC_FREE);
	weave_spawn("supervisor", create_topic, weave_alloc(sizeof(struct lay_partition)));
	weave_spawn("who asks", ask_for_topic, NULL);
}
SCENARIO(new_topic_asked_for, set_up_asked, NULL);

/* Who looks at the record without having opened the topic has it of one, or knows. */
enum { OLD_ID = 1, OLD_DEPTH = 2048, NEW_DEPTH = 4096 };

static void fill_again(void *arg)
{
	struct lay_topic *rec = world->rec;

	store_release(&rec->state, LAY_TOPIC_FREE);
	fence_release(); /* F1 */
	rec->depth = NEW_DEPTH;
	rec->max_bytes = NEW_DEPTH;
	fence_release(); /* F2 */
	rec->id = NEW_ID;
	store_release(&rec->state, LAY_TOPIC_LIVE);
}

static void describe(void *arg)
{
	struct lay_topic *rec = world->rec;
	uint64_t id, depth, bytes, want;

	if (shmq__topic_look(rec, &id) != LAY_TOPIC_LIVE)
		return;
	depth = rec->depth;
	bytes = rec->max_bytes;
	if (!shmq__topic_is_still(rec, id))
		return;
	want = id == OLD_ID ? OLD_DEPTH : NEW_DEPTH;
	WANT_EQ(depth, want);
	WANT_EQ(bytes, want);
}

static void set_up_described(void)
{
	world_new(&(struct world_options){ .depth = 2, .base_seq = 3 });
	world->rec->id = OLD_ID;
	world->rec->depth = world->rec->max_bytes = OLD_DEPTH;
	store_relaxed(&world->rec->state, LAY_TOPIC_LIVE);
	weave_spawn("supervisor", fill_again, NULL);
	weave_spawn("who describes", describe, NULL);
}
SCENARIO(topic_described, set_up_described, NULL);

TEST_WITHIN(what_is_said_of_a_topic_is_of_one_while_its_record_is_filled_again, WEAVE_LIMIT_S)
{
	weave_random(&topic_described, WEAVE_SC, 1500);
	weave_random(&topic_described, WEAVE_WEAK, 5000);
}

TEST_WITHIN(who_asks_for_a_new_topic_gets_all_of_it_or_nothing, WEAVE_LIMIT_S)
{
	weave_random(&new_topic_asked_for, WEAVE_SC, 1500);
	weave_random(&new_topic_asked_for, WEAVE_WEAK, 2500);
}

TEST_WITHIN(nobody_writes_over_what_a_joiner_reads, WEAVE_LIMIT_S)
{
	weave_random(&reader_closes, WEAVE_SC, 1500);
	weave_random(&reader_closes, WEAVE_WEAK, 2500);
	weave_random(&join_one, WEAVE_SC, 1500);
	weave_random(&join_one, WEAVE_WEAK, 5000);
	weave_random(&join_two, WEAVE_SC, 1500);
	weave_random(&join_two, WEAVE_WEAK, 5000);
	weave_random(&join_beside, WEAVE_SC, 1500);
	weave_random(&join_beside, WEAVE_WEAK, 2500);
}

TEST_WITHIN(publishers_go_on_when_whom_they_wait_for_leaves, WEAVE_LIMIT_S)
{
	weave_random(&leave_waited_for, WEAVE_SC, 1500);
	weave_random(&leave_waited_for, WEAVE_WEAK, 2500);
	weave_random(&replace_member, WEAVE_SC, 1500);
	weave_random(&replace_member, WEAVE_WEAK, 2500);
}

TEST_WITHIN(nobody_writes_over_what_is_not_in_the_log, WEAVE_LIMIT_S)
{
	weave_random(&log_gates, WEAVE_SC, 1500);
	weave_random(&log_gates, WEAVE_WEAK, 2500);
}

TEST_WITHIN(whom_a_walk_comes_by_is_there_and_whole, WEAVE_LIMIT_S)
{
	weave_random(&chunk_used_again, WEAVE_SC, 1500);
	weave_random(&chunk_used_again, WEAVE_WEAK, 2500);
	weave_random(&dead_reader_replaced, WEAVE_SC, 1500);
	weave_random(&dead_reader_replaced, WEAVE_WEAK, 2500);
	weave_random(&totals_summed_up, WEAVE_SC, 1500);
	weave_random(&totals_summed_up, WEAVE_WEAK, 2500);
}
