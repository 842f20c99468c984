/* SPDX-License-Identifier: MIT
 *
 * SIGSTOP at labelled steps, for longer than anybody waits, then SIGCONT.
 *
 * Whoever stands inside a claim then is killed or reported, as the topic has
 * it, and is never voided while it lives; whoever does not is left alone.
 * What a resumed process writes goes to what is still its own: the others,
 * who have gone on and round meanwhile, find nothing of it in theirs.
 *
 * Many stand still at a time, each on a topic of its own.
 */
#include "../../libshmq/sub_priv.h"
#include "cast.h"
#include "helpers.h"
#include "steps.h"
#include "victim.h"

enum { DEPTH = 1024, CASES = 256, OTHERS = 2 };
enum { ARENA = 16384 };
enum { LAST = 99 }; /* type of the message after which nothing comes */

/* ---- who is stopped ---------------------------------------------------------------- */

static const struct victim_act acts[] = {
	{ "publish", victim_publish, 40, 1, 0 },
	{ "publish through the arena", victim_publish, VICTIM_LARGE, 1, 0 },
	{ "publish a batch", victim_publish_batch, 40, 2, 0 },
	{ "publish an atomic batch", victim_publish_batch, 40, 3, 1 },
	{ "claim and commit in the arena", victim_claim_and_commit, VICTIM_LARGE, 1, 0 },
};

/* ---- where it stands ------------------------------------------------------------------ */

struct stand {
	struct victim *victim;
	enum shmq_mode mode;
	char topic[16];
	pid_t pid;
	shmq_pub *pub; /* of the others; NULL on an exclusive topic */
	shmq_sub *sub;
	struct victim_slots slots; /* of it, when it was stopped */
	uint64_t sent;             /* by pub */
	unsigned got, others;      /* messages of it, 1 bit each; of pub's */
	uint64_t lost;
	int is_told;    /* by an event that it is stalled */
	int is_refused; /* SHMQ_ESTALLED */
};

static struct stand stands[CASES];
static unsigned count;

static void send_one(struct stand *s, size_t len)
{
	static char buf[CAST_MESSAGE_MAX];

	cast_fill(buf, len, CAST_OTHERS, s->sent++);
	CHECK_OK(shmq_publish(s->pub, buf, len));
}

static void check_whole(const struct shmq_msg *m, uint64_t head[2])
{
	CHECK_GE(m->len, 2 * sizeof(head[0]));
	memcpy(head, m->data, 2 * sizeof(head[0]));
	CHECK(is_filled((const char *)m->data + 16, m->len - 16, head[0] << 32 | head[1]));
}

/* Run to the state-th store that others see, or to the instruction-th
 * instruction, and stop there.  0 if the operation was over before. */
static int stop_at(struct stand *s, uint64_t state, uint64_t instruction)
{
	struct watch watch = { .count = 0 };
	struct shmq__topic *t = s->sub->h.topic;
	enum stepper_at at = STEPPER_STEP;
	uint64_t states = 0;
	struct stepper step;

	stepper_fork(&step, s->victim->act->live, s->victim);
	stepper_go(&step);
	victim_watch(s->victim, t, &watch);
	while (states < state && step.steps < instruction && at == STEPPER_STEP) {
		at = stepper_step(&step);
		states += (unsigned)watch_look(&watch);
	}
	watch_free(&watch);
	if (at != STEPPER_STEP) {
		stepper_kill(&step);
		return 0;
	}
	s->pid = step.pid;
	stepper_leave_stopped(&step);
	s->slots = victim_look(s->victim, t, 0);
	return 1;
}

struct conditions {
	enum shmq_mode mode;
	enum shmq_policy policy;
	enum shmq_stall stall;
};

static struct stand *new_stand(shmq_bus *bus, const struct victim_act *act,
			       const struct conditions *on)
{
	struct stand *s = &stands[count];

	CHECK_LT(count, CASES);
	*s = (struct stand){ .victim = shared_memory(sizeof(*s->victim)) };
	snprintf(s->topic, sizeof(s->topic), "t%u", count++);
	s->victim->act = act;
	s->victim->topic = s->topic;
	s->victim->number = CAST_SUBJECT;
	s->mode = on->mode;
	create(bus, s->topic, .depth = DEPTH, .mode = on->mode, .policy = on->policy,
	       .stall = on->stall, .max_message_bytes = CAST_MESSAGE_MAX);
	s->sub = open_sub(bus, s->topic);
	if (on->mode == SHMQ_SHARED)
		s->pub = open_pub(bus, s->topic, .arena_bytes = ARENA, .flags = SHMQ_DONTWAIT);
	for (unsigned i = 0; !act->count && i < 3; i++) /* something to receive */
		send_one(s, act->bytes);
	return s;
}

static void drop_stand(shmq_bus *bus, struct stand *s)
{
	shmq_sub_close(s->sub);
	if (s->pub)
		shmq_pub_close(s->pub);
	CHECK_OK(shmq_topic_remove(bus, s->topic, 0));
	munmap(s->victim, sizeof(*s->victim));
}

/* One that is stopped at the state-th store, or the instruction-th instruction;
 * 0 if it came to its end before. */
static int add_stand(shmq_bus *bus, const struct victim_act *act, const struct conditions *on,
		     uint64_t state, uint64_t instruction)
{
	struct stand *s = new_stand(bus, act, on);

	if (stop_at(s, state, instruction))
		return 1;
	await_event(bus, SHMQ_EVENT_DIED, s->victim->client);
	drop_stand(bus, s);
	count--;
	return 0;
}

/* One at each labelled step of an operation, and at a few instructions more. */
static void stop_everywhere(shmq_bus *bus, const struct victim_act *act,
			    const struct conditions *on, uint64_t *random)
{
	unsigned stride = steps_is_torture() ? 1 : 20, steps = 0;
	/* What a reader reads, and may find changed, it reads between its stores. */
	unsigned more = act->count ? 2 : 8;
	uint64_t state = fake_random(random) % stride;

	for (; add_stand(bus, act, on, state, UINT64_MAX); state += stride)
		steps++;
	for (unsigned i = 0; i < more; i++)
		add_stand(bus, act, on, UINT64_MAX, 1 + fake_random(random) % 500);
	NOTE("%s: stopped at %u labelled steps", act->name, steps);
}

static shmq_bus *stop_publishers(const struct conditions *on)
{
	uint64_t random = steps_seed();
	shmq_bus *bus;

	stepper_need();
	test_bus_start();
	bus = test_bus_open();
	for (size_t i = 0; i < COUNT(acts); i++)
		stop_everywhere(bus, &acts[i], on, &random);
	for (unsigned i = 0; i < count; i++)
		for (int k = 0; stands[i].pub && k < OTHERS; k++)
			send_one(&stands[i], 40);
	return bus;
}

static unsigned all_of(const struct stand *s)
{
	return (1u << s->victim->act->count) - 1;
}

/* What it has taken and others do not get, as long as it stands there. */
static unsigned unsent(const struct stand *s)
{
	return s->slots.taken & ~s->slots.committed;
}

static unsigned count_bits(unsigned mask)
{
	return (unsigned)__builtin_popcount(mask);
}

/* ---- time passes ------------------------------------------------------------------------ */

static void read_some(struct stand *s)
{
	struct shmq_msg m;
	uint64_t head[2];
	int rc;

	while ((rc = shmq_receive(s->sub, &m, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		if (rc == SHMQ_ESTALLED) {
			s->is_refused = 1;
			break;
		}
		if (rc == SHMQ_EOVERRUN) {
			s->lost += m.lost;
			continue;
		}
		CHECK_OK(rc);
		check_whole(&m, head);
		if (head[0] == CAST_OTHERS) {
			s->others++;
			continue;
		}
		CHECK_EQ(s->got >> head[1], 0); /* once, in its order */
		s->got |= 1u << head[1];
	}
	CHECK_OK(shmq_release(s->sub));
}

static void hear(shmq_bus *bus)
{
	struct shmq_event event;

	while (!shmq_bus_event(bus, &event, SHMQ_NOWAIT))
		for (unsigned i = 0; i < count; i++)
			if (event.kind == SHMQ_EVENT_STALLED &&
			    event.client_id == stands[i].victim->client)
				stands[i].is_told = 1;
}

/* Everybody reads on until those who stand in a claim have been told of, and
 * settle(s) says 1. */
static void let_time_pass(shmq_bus *bus, int (*settle)(const struct stand *s))
{
	int64_t deadline = test_now_ns() + PATIENCE;
	unsigned left;

	do {
		left = 0;
		hear(bus);
		for (unsigned i = 0; i < count; i++) {
			read_some(&stands[i]);
			left += stands[i].slots.claimed &&
				(!stands[i].is_told || !settle(&stands[i]));
		}
		if (test_now_ns() > deadline)
			FAIL("%u claims of the stalled are not settled", left);
		test_sleep_ms(1);
	} while (left);
}

static uint64_t voids_of(shmq_bus *bus, const struct stand *s)
{
	struct shmq_partition_info part;

	CHECK_OK(shmq_topic_get_partition(bus, s->topic, 0, &part));
	return part.voids;
}

static void resume(struct stand *s)
{
	int status;

	CHECK_EQ(waitpid(s->pid, &status, WNOHANG), 0); /* it lives */
	CHECK_OK(kill(s->pid, SIGCONT));
	/* The mark at its end is a trap now that nobody traces it. */
	CHECK_EQ(test_join(s->pid), 128 + SIGTRAP);
}

/* ---- killed ------------------------------------------------------------------------------- */

static int others_arrived(const struct stand *s)
{
	return s->others == OTHERS;
}

TEST_WITHIN(with_stall_kill_who_stops_in_a_claim_is_killed_and_nobody_else, 300)
{
	const struct conditions on = { SHMQ_SHARED, SHMQ_BLOCK, SHMQ_STALL_KILL };
	shmq_bus *bus = stop_publishers(&on);
	unsigned killed = 0;

	let_time_pass(bus, others_arrived);
	for (unsigned i = 0; i < count; i++) {
		struct stand *s = &stands[i];

		if (s->slots.claimed) {
			killed++;
			CHECK_EQ(test_join(s->pid), 128 + SIGKILL);
			CHECK_EQ(s->got, s->slots.committed);
			CHECK_EQ(voids_of(bus, s), count_bits(unsent(s)));
		} else {
			CHECK(!s->is_told);
			CHECK_EQ(voids_of(bus, s), 0);
			CHECK_EQ(s->others, OTHERS);
			resume(s);
			read_some(s);
			CHECK_EQ(s->got, all_of(s));
		}
		CHECK_EQ(s->others, OTHERS);
		CHECK_EQ(sub_stats(s->sub).lost, 0);
		CHECK(!s->is_refused);
	}
	CHECK_GT(killed, 0);
	CHECK_LT(killed, count);
	NOTE("%u stopped, %u of them in a claim", count, killed);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- reported ----------------------------------------------------------------------------- */

/* It finds them where they stand, and is told of them once more. */
static void replace_worker(shmq_bus *bus)
{
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
	await_event(bus, SHMQ_EVENT_REATTACHED, 0);
	for (unsigned i = 0; i < count; i++) {
		shmq_sub *late = open_sub(bus, stands[i].topic);

		shmq_sub_close(late);
		CHECK_EQ(topic_info(bus, stands[i].topic).publishers, 2);
	}
}

static int was_refused(const struct stand *s)
{
	return s->is_refused;
}

TEST_WITHIN(with_stall_report_a_stopped_publisher_is_voided_by_nobody_and_goes_on, 300)
{
	const struct conditions on = { SHMQ_SHARED, SHMQ_BLOCK, SHMQ_STALL_REPORT };
	shmq_bus *bus = stop_publishers(&on);
	unsigned told = 0;

	let_time_pass(bus, was_refused);
	replace_worker(bus);
	for (unsigned i = 0; i < count; i++) {
		struct stand *s = &stands[i];

		told += s->is_told;
		CHECK_EQ(s->is_told, s->slots.claimed != 0);
		CHECK_EQ(voids_of(bus, s), 0);
		resume(s);
		read_some(s);
		CHECK_EQ(s->got, all_of(s));
		CHECK_EQ(s->others, OTHERS);
		CHECK_EQ(voids_of(bus, s), 0);
		CHECK_EQ(sub_stats(s->sub).lost, 0);
	}
	NOTE("%u stopped, %u of them in a claim", count, told);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- passed ----------------------------------------------------------------------------- */

static int was_passed(const struct stand *s)
{
	return s->lost == count_bits(unsent(s)) && s->others == OTHERS;
}

/* The others go round: up to the slot that is held, or past it twice where none
 * is, over every slot that the stopped one may have had in mind. */
static void go_round(struct stand *s)
{
	static char buf[CAST_MESSAGE_MAX];
	unsigned i;
	int rc = 0;

	for (i = 0; i < 2 * DEPTH + 10 && !rc; i++) {
		cast_fill(buf, 40, CAST_OTHERS, s->sent++);
		rc = shmq_publish(s->pub, buf, 40);
	}
	if (!s->slots.claimed) {
		CHECK_OK(rc);
		return;
	}
	CHECK_ERROR(rc, SHMQ_ESTALLED);
	CHECK_LE(i, DEPTH);
}

static int wait_at_claim(void *arg)
{
	const struct stand *s = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, s->topic);

	CHECK_ERROR(shmq_publish(pub, "sixteen of bytes", 16), SHMQ_ESTALLED);
	shmq_bus_close(bus);
	return 0;
}

/* Who waits there looks after whom it waits for, and leaves it what it has. */
static void wait_at_claims(void)
{
	pid_t pid[CASES];

	for (unsigned i = 0; i < count; i++)
		pid[i] = stands[i].slots.claimed ? test_spawn(wait_at_claim, &stands[i]) : 0;
	for (unsigned i = 0; i < count; i++)
		if (pid[i])
			CHECK_EQ(test_join(pid[i]), 0);
}

/* Everything in the ring is whole, whoever joins. */
static unsigned check_ring(shmq_bus *bus, const struct stand *s)
{
	shmq_sub *late = open_sub(bus, s->topic, .from = SHMQ_FROM_OLDEST);
	unsigned got = 0;
	struct shmq_msg m;
	uint64_t head[2];
	int rc;

	while ((rc = shmq_receive(late, &m, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		if (rc == SHMQ_EOVERRUN)
			continue;
		CHECK_OK(rc);
		check_whole(&m, head);
		if (head[0] == CAST_SUBJECT)
			got |= 1u << head[1];
	}
	shmq_sub_close(late);
	return got;
}

/* The others stand before the slot that it holds, so with its next message it
 * comes round to it. */
static unsigned passed_by_itself(const struct stand *s)
{
	return s->victim->act->is_atomic ? 0 : s->slots.claimed & all_of(s) >> 1;
}

/* The rest of an atomic batch does not fit any more: it begins anew. */
static unsigned given_back(const struct stand *s)
{
	return s->victim->act->is_atomic && s->slots.taken != all_of(s) ? s->slots.claimed : 0;
}

TEST_WITHIN(a_resumed_publisher_writes_into_nothing_that_is_no_longer_its_own, 300)
{
	const struct conditions on = { SHMQ_SHARED, SHMQ_LOSSY, SHMQ_STALL_REPORT };
	shmq_bus *bus = stop_publishers(&on);

	let_time_pass(bus, was_passed);
	for (unsigned i = 0; i < count; i++)
		go_round(&stands[i]);
	wait_at_claims();
	for (unsigned i = 0; i < count; i++) {
		struct stand *s = &stands[i];

		CHECK_EQ(voids_of(bus, s), 0);
		check_ring(bus, s);
		resume(s);
		/* What it had not committed comes now, but what it passes itself. */
		CHECK_EQ(check_ring(bus, s) & ~s->slots.committed,
			 all_of(s) & ~s->slots.committed & ~passed_by_itself(s));
		CHECK_EQ(voids_of(bus, s), count_bits(given_back(s)));
	}
	NOTE("%u stopped, and the others went round", count);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- elsewhere ---------------------------------------------------------------------------- */

static const char *fresh_name(unsigned i)
{
	static char name[16];

	snprintf(name, sizeof(name), "fresh%u", i);
	return name;
}

/* So many that what was freed is used again; every slot and all arena bytes. */
static shmq_pub *fill_topic(shmq_bus *bus, const char *topic)
{
	shmq_pub *pub = open_pub(bus, topic, .arena_bytes = ARENA);
	static char buf[CAST_MESSAGE_MAX];

	for (uint64_t i = 0; i < DEPTH; i++) {
		size_t len = i % 64 == 1 ? VICTIM_LARGE : 40;

		cast_fill(buf, len, CAST_OTHERS, i);
		CHECK_OK(shmq_publish(pub, buf, len));
	}
	return pub;
}

/* All that stands there is what fill_topic() sent, whole. */
static void check_filled(shmq_bus *bus, const char *topic)
{
	shmq_sub *sub = open_sub(bus, topic, .from = SHMQ_FROM_OLDEST);
	uint64_t head[2], next = 0;
	struct shmq_msg m;
	int rc;

	while ((rc = shmq_receive(sub, &m, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		if (rc == SHMQ_EOVERRUN) { /* bytes of the arena are used again */
			next += m.lost;
			continue;
		}
		CHECK_OK(rc);
		check_whole(&m, head);
		CHECK_EQ(head[0], CAST_OTHERS);
		if (next) /* else it joined there */
			CHECK_EQ(head[1], next);
		next = head[1] + 1;
	}
	CHECK_EQ(next, DEPTH);
	shmq_sub_close(sub);
}

static int is_alone(void *arg)
{
	struct shmq_bus_info info;

	CHECK_OK(shmq_bus_get_info(arg, &info));
	return info.clients == 1;
}

/* The topic of one is moved, of the next removed, and the memory that this
 * frees is given to others. */
static void check_elsewhere(enum shmq_mode mode)
{
	const struct conditions on = { mode, SHMQ_LOSSY, SHMQ_STALL_REPORT };
	shmq_bus *bus = stop_publishers(&on);

	for (unsigned i = 0; i < count; i++) {
		struct stand *s = &stands[i];

		shmq_sub_close(s->sub);
		if (s->pub)
			shmq_pub_close(s->pub);
		if (i % 2)
			CHECK_OK(shmq_topic_move(bus, s->topic));
		else
			CHECK_OK(shmq_topic_remove(bus, s->topic, SHMQ_FORCE));
		create(bus, fresh_name(i), .depth = DEPTH, .mode = mode, .policy = SHMQ_LOSSY,
		       .max_message_bytes = CAST_MESSAGE_MAX);
		s->pub = fill_topic(bus, i % 2 ? s->topic : fresh_name(i));
	}
	for (unsigned i = 0; i < count; i++)
		resume(&stands[i]);
	if (!test_wait_until(is_alone, bus, (int)(PATIENCE / MILLISECOND)))
		FAIL("who has gone is still there");
	for (unsigned i = 0; i < count; i++) {
		check_filled(bus, i % 2 ? stands[i].topic : fresh_name(i));
		shmq_pub_close(stands[i].pub);
		if (i % 2)
			CHECK_OK(shmq_topic_remove(bus, stands[i].topic, 0));
		CHECK_OK(shmq_topic_remove(bus, fresh_name(i), 0));
	}
	NOTE("%u stopped, and their topics went", count);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(who_is_stopped_while_its_shared_topic_goes_writes_into_no_other, 300)
{
	check_elsewhere(SHMQ_SHARED);
}

TEST_WITHIN(who_is_stopped_while_its_exclusive_topic_goes_writes_into_no_other, 300)
{
	check_elsewhere(SHMQ_EXCLUSIVE);
}

/* ---- subscribers ---------------------------------------------------------------------------- */

/* Receives until it is told that it was evicted, or the last came; what it gets
 * is whole, and it knows what it did not get. */
static int receive_on(void *arg)
{
	struct victim *v = arg;
	static char buf[CAST_MESSAGE_MAX];
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, v->topic, .from = SHMQ_FROM_OLDEST);
	uint64_t head[2] = { 0 }, next = 0;
	struct shmq_msg m;
	int rc;

	atomic_store(&v->client, shmq_bus_client_id(bus));
	STEPPER_MARK();
	for (;;) {
		rc = shmq_receive_copy(sub, buf, sizeof(buf), &m, PATIENCE);
		if (rc == SHMQ_EEVICTED)
			break;
		if (rc == SHMQ_EOVERRUN) {
			next += m.lost;
			continue;
		}
		CHECK_OK(rc);
		CHECK_EQ(m.seq, next++);
		if (m.type == LAST)
			break;
		check_whole(&m, head);
		CHECK_EQ(head[1], m.seq); /* not another that took its place */
	}
	shmq_bus_close(bus);
	return 0;
}

static const struct victim_act receivers[] = {
	{ "receive", receive_on, 40, 0, 0 },
	{ "receive from an arena", receive_on, VICTIM_LARGE, 0, 0 },
};

/* The others publish twice round, as far as they may. */
static void publish_round(struct stand *s, enum shmq_policy policy)
{
	static char buf[CAST_MESSAGE_MAX];
	size_t len = s->victim->act->bytes;
	int rc = 0;

	for (unsigned k = 0; k < 2 * DEPTH && !rc; k++) {
		cast_fill(buf, len, CAST_OTHERS, s->sent++);
		rc = shmq_publish(s->pub, buf, len);
		read_some(s);
	}
	CHECK_ERROR(rc, policy == SHMQ_BLOCK ? SHMQ_EFULL : 0);
}

static void check_stopped_receivers(enum shmq_policy policy)
{
	const struct conditions on = { SHMQ_SHARED, policy, SHMQ_STALL_KILL };
	struct shmq_msg last = { .data = "sixteen of bytes", .len = 16, .type = LAST };
	uint64_t random = steps_seed();
	shmq_bus *bus;

	stepper_need();
	test_bus_start();
	bus = test_bus_open();
	for (size_t i = 0; i < COUNT(receivers); i++)
		stop_everywhere(bus, &receivers[i], &on, &random);
	for (unsigned i = 0; i < count; i++) {
		struct stand *s = &stands[i];
		shmq_pub *patient = open_pub(bus, s->topic);

		if (policy == SHMQ_EVICT) { /* who does not wait evicts nobody */
			shmq_pub_close(s->pub);
			s->pub = open_pub(bus, s->topic, .arena_bytes = ARENA);
		}
		publish_round(s, policy);
		CHECK_EQ(waitpid(s->pid, NULL, WNOHANG), 0);
		CHECK_OK(kill(s->pid, SIGCONT));
		CHECK_OK(shmq_publish_msg(patient, &last));
		CHECK_EQ(test_join(s->pid), 0);
		shmq_pub_close(patient);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(a_stopped_subscriber_of_a_topic_that_blocks_gets_everything_whole, 300)
{
	check_stopped_receivers(SHMQ_BLOCK);
}

TEST_WITHIN(a_stopped_subscriber_that_was_evicted_is_told_so_and_gets_nothing_torn, 300)
{
	check_stopped_receivers(SHMQ_EVICT);
}

TEST_WITHIN(a_stopped_subscriber_that_was_lapped_knows_its_loss_and_gets_nothing_torn, 300)
{
	check_stopped_receivers(SHMQ_LOSSY);
}
