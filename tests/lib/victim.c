/* SPDX-License-Identifier: MIT */
#include "victim.h"

#include "cast.h"
#include "helpers.h"
#include "ring.h"

enum { MOST = 8, ARENA = 16384 };

static char bytes[MOST][CAST_MESSAGE_MAX];
static struct shmq_msg many[MOST];

static shmq_pub *begin(struct victim *v)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub =
		open_pub(bus, v->topic, .arena_bytes = v->act->bytes == VICTIM_LARGE ? ARENA : 0);

	atomic_store(&v->client, shmq_bus_client_id(bus));
	for (unsigned i = 0; i < v->act->count; i++) {
		cast_fill(bytes[i], v->act->bytes, v->number, i);
		many[i] = (struct shmq_msg){ .data = bytes[i], .len = v->act->bytes };
	}
	return pub;
}

int victim_publish(void *victim)
{
	shmq_pub *pub = begin(victim);

	STEPPER_MARK();
	shmq_publish(pub, many[0].data, many[0].len);
	STEPPER_MARK();
	return 0;
}

int victim_publish_batch(void *victim)
{
	struct victim *v = victim;
	shmq_pub *pub = begin(v);

	STEPPER_MARK();
	shmq_publish_batch(pub, many, v->act->count, v->act->is_atomic ? SHMQ_ATOMIC : 0);
	STEPPER_MARK();
	return 0;
}

int victim_claim_and_commit(void *victim)
{
	shmq_pub *pub = begin(victim);
	void *data;

	STEPPER_MARK();
	if (shmq_claim(pub, many[0].len, &data))
		return 1;
	memcpy(data, many[0].data, many[0].len);
	shmq_commit(pub, NULL);
	STEPPER_MARK();
	return 0;
}

/* ---- seen by others -------------------------------------------------------------- */

struct lay_member *victim_member(const struct victim *v, struct shmq__topic *t)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	while ((m = shmq__topic_next_member(t, &it)))
		if (m->client == atomic_load(&v->client))
			return m;
	FAIL("the victim is not in the roster");
}

void victim_watch(const struct victim *v, struct shmq__topic *t, struct watch *watch)
{
	struct lay_entry *own = shmq__topic_entry(t, victim_member(v, t), 0);

	watch_add(watch, WATCH_RING, t->ring[0].mem, t->geo.ring_bytes, 0, &t->geo);
	watch_add(watch, WATCH_BELLS, t->ring[0].bells, sizeof(struct lay_bells), 0, NULL);
	watch_add(watch, WATCH_ENTRIES, own, sizeof(*own), 0, NULL);
}

struct victim_slots victim_look(const struct victim *v, const struct shmq__topic *t, uint64_t first)
{
	struct victim_slots slots = { 0 };

	for (unsigned i = 0; i < v->act->count; i++) {
		struct ring_reader at = { .mem = t->ring[0].mem, .geo = t->geo, .next = first + i };
		uint64_t word;
		enum ring_look look = ring_look(&at, &word);

		slots.claimed |= (unsigned)(look == RING_CLAIMED) << i;
		slots.taken |= (unsigned)(look == RING_CLAIMED || look == RING_MESSAGE) << i;
	}
	slots.committed = slots.taken & ~slots.claimed;
	if (v->act->is_atomic && !(slots.committed & 1))
		slots.committed = 0;
	return slots;
}
