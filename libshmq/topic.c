/* SPDX-License-Identifier: MIT
 *
 * Edges
 *   J1 roster entry, cursor at its lowest   -> J2 full fence -> J3 limits
 *   C1 publisher stores its limit           -> C2 full fence -> C3 roster
 *      and cursors again (credit.c)
 *      One of J3 and C3 sees the other's store: either the publisher's
 *      second scan finds the joiner, or the joiner finds the limit and
 *      starts at or after limit - depth.  Without either fence both could
 *      miss, and the publisher would write over what the joiner reads.
 *   M1 member fields -> state (release) -> epoch (release); readers load
 *      epoch (acquire), walk, and load it again: a walk over a member that
 *      was replaced meanwhile is repeated.
 *
 *   T1 totals_word odd -> fence (release) -> FREE, totals -> T2 totals_word
 *      even (release); readers load it (acquire), walk and sum, fence, and
 *      load it again: a sum in which a member that leaves is missing, or there
 *      twice, is made once more.
 *
 *   F1 record FREE -> fence (release) -> fields of another topic -> F2 fence (release)
 *      -> id -> LIVE (release); daemon/records.c
 *   F3 id -> fence (acquire) -> fields -> F4 fence (acquire) -> F5 state (acquire) -> id:
 *      by F3 all is of that id or newer, and who read anything newer finds at F5 that it
 *      is gone.
 *
 *   The end of a ring: ENDED stands for MOVED too, ENDING for MOVING.
 *
 *   publisher                supervisor                 reader
 *   N1 commit (release)      N3 ENDING (relaxed)        N6 sees ENDED (acquire)
 *      light or full fence   N4 full fence, membarrier  N7 looks once more
 *   N2 state (relaxed)       N5 ENDED (release)
 *
 *      What N1 commits and N2 does not refuse, N7 sees.  A publisher with the
 *      light fence passes a barrier in N4: before N2, then N2 sees ENDING; else
 *      after N1, which N5 then comes after.  One with the full fence has it
 *      between N1 and N2, in one order with that of N4: either N2 sees ENDING,
 *      or whoever reads N5 sees N1.  N4 would be release enough for that; N5 is
 *      one for where a ring that moved says that the next begins (daemon/move.c).
 *      Without N3 and N4, N1 could stand in the publisher's store buffer, with N2 done, when
 *      N7 comes.
 *      All rings are at N3 before N4, and at N4 before any is at N5: one N2
 *      does for commits to several rings, and the N6 of one for N7 at all.
 *      A process is registered for membarrier before it fences lightly
 *      (shmq__bus_ready()), on topics where nobody sleeps too.  If the supervisor is
 *      denied it, those that open a topic then fence in full
 *      (shmq__bus_commit_fence()); for those that had it open already, on a bus
 *      whose supervisor was another, N4 takes a millisecond.
 */
#include "topic.h"
#include "futex.h"
#include "proc.h"
#include "ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The topic with those rings of it whose partition is in [first, end). */
static int attach(struct shmq__slabs *slabs, uint32_t index, uint64_t id,
		  enum shmq__slabs_mode mode, uint32_t first, uint32_t end,
		  struct shmq__topic **out)
{
	struct lay_topic *rec = shmq__slabs_topic(slabs, index);
	struct lay_partition *part;
	struct lay_geometry geo;
	struct shmq__topic *t;
	uint32_t state, i;
	int error;

	if (!rec)
		return SHMQ_ENOTOPIC;
	state = load_acquire(&rec->state);
	if ((state != LAY_TOPIC_LIVE && state != LAY_TOPIC_ENDED) || rec->id != id)
		return SHMQ_ENOTOPIC;
	error = shmq__layout_geometry(rec, &geo);
	if (error)
		return error;
	if (end > geo.partitions)
		end = geo.partitions;
	if (first >= end)
		return SHMQ_EOPTION;
	part = shmq__slabs_at(slabs, rec->partition_array, geo.partitions * sizeof(*part));
	if (!part)
		return SHMQ_ECORRUPT;
	t = calloc(1, sizeof(*t) + geo.partitions * sizeof(t->ring[0]));
	if (!t)
		return -ENOMEM;
	t->slabs = slabs;
	t->rec = rec;
	t->index = index;
	t->id = id;
	t->geo = geo;
	t->mode = mode;
	for (i = first; i < end; i++) {
		struct shmq__ring *r = &t->ring[i];
		void *mem;

		r->geo = geo;
		r->ref = part[i].ring;
		r->part = &part[i];
		r->bells = shmq__slabs_at_writable(slabs, part[i].bells, sizeof(*r->bells));
		error = r->bells ? shmq__slabs_map(slabs, r->ref, geo.ring_bytes, mode, &mem) :
				   SHMQ_ECORRUPT;
		if (error)
			goto out;
		r->mem = mem;
		error = shmq__layout_check_ring(r->mem, &geo, id, i);
		if (error)
			goto out;
	}
	*out = t;
	return 0;
out:
	shmq__topic_detach(t);
	return error;
}

int shmq__topic_attach(struct shmq__slabs *slabs, uint32_t index, uint64_t id,
		       enum shmq__slabs_mode mode, struct shmq__topic **out)
{
	return attach(slabs, index, id, mode, 0, UINT32_MAX, out);
}

int shmq__topic_attach_ring(struct shmq__slabs *slabs, uint32_t index, uint64_t id,
			    enum shmq__slabs_mode mode, uint32_t partition,
			    struct shmq__topic **out)
{
	if (partition >= LAY_PARTITIONS_MAX)
		return SHMQ_EOPTION;
	return attach(slabs, index, id, mode, partition, partition + 1, out);
}

uint32_t shmq__topic_look(struct lay_topic *rec, uint64_t *id)
{
	uint32_t state = load_relaxed(&rec->state); /* it is asked for again */

	*id = rec->id;
	fence_acquire(); /* F3 */
	return state;
}

int shmq__topic_is_still(struct lay_topic *rec, uint64_t id)
{
	uint32_t state;

	fence_acquire();                   /* F4 */
	state = load_acquire(&rec->state); /* F5 */
	return (state == LAY_TOPIC_LIVE || state == LAY_TOPIC_ENDED) && rec->id == id;
}

void shmq__topic_detach(struct shmq__topic *t)
{
	uint32_t i;

	if (!t)
		return;
	for (i = 0; i < t->geo.partitions; i++)
		shmq__slabs_unmap(t->slabs, t->ring[i].ref, t->geo.ring_bytes, t->ring[i].mem);
	free(t);
}

/* A chain that leads back to itself ends there: the chunk marked last, at twice
 * the distance each time, is met again then. */
static lay_ref follow(struct shmq__roster_iter *it, lay_ref next)
{
	if (next == it->marked)
		return 0;
	if (++it->steps >= it->span) {
		it->marked = next;
		it->span = 2 * it->steps;
		it->steps = 0;
	}
	return next;
}

struct lay_member *shmq__topic_next_member(const struct shmq__topic *t,
					   struct shmq__roster_iter *it)
{
	if (!it->started) {
		it->started = 1;
		it->chunk = t->rec->roster;
		it->next = 0;
	}
	while (it->chunk) {
		struct lay_roster *chunk = shmq__slabs_at(t->slabs, it->chunk, sizeof(*chunk));

		if (!chunk)
			return NULL;
		while (it->next < LAY_ROSTER_MEMBERS) {
			struct lay_member *m = &chunk->member[it->next++];
			struct lay_client *c;

			if (load_acquire(&m->state) == LAY_MEMBER_FREE)
				continue;
			c = shmq__slabs_client(t->slabs, m->client);
			/* Relaxed: of who is gone nothing is read. */
			if (c && load_relaxed(&c->gen) == m->client_gen)
				return m;
		}
		it->chunk = follow(it, load_acquire(&chunk->next));
		it->next = 0;
	}
	return NULL;
}

int shmq__topic_client_is_dead(const struct shmq__topic *t, unsigned client, uint64_t gen)
{
	struct lay_client *c = shmq__slabs_client(t->slabs, client);
	struct shmq__proc_id id;
	uint32_t state;

	if (!c)
		return 0;
	id.pid = (pid_t)load_relaxed(&c->pid);
	id.start_time = load_relaxed(&c->start_time);
	id.pidns = load_relaxed(&c->pidns);
	/* Relaxed, all of it: who is dead neither reads nor writes any more, and
	 * what it did is behind the proof, which is the kernel's. */
	state = load_relaxed(&c->state);
	return load_relaxed(&c->gen) != gen || state == LAY_CLIENT_DEAD || shmq__proc_is_dead(&id);
}

struct lay_entry *shmq__topic_entry(const struct shmq__topic *t, const struct lay_member *m,
				    uint32_t partition)
{
	struct lay_entry *e;
	uint64_t i = partition;

	if (m->partition >= 0) {
		if ((uint32_t)m->partition != partition)
			return NULL;
		i = 0;
	}
	e = shmq__slabs_at(t->slabs, m->entry + i * sizeof(*e), sizeof(*e));
	/* Relaxed: it was filled before the member was there (M1). */
	return e && load_relaxed(&e->gen) == m->entry_gen ? e : NULL;
}

uint64_t shmq__topic_head(const struct shmq__ring *r)
{
	return shmq__ring_head(r->mem, &r->geo);
}

uint64_t shmq__topic_oldest(const struct shmq__ring *r, uint64_t floor)
{
	uint64_t head = shmq__topic_head(r), n = r->mem->base_seq, steps;

	if (seq_diff(head, n) > (int64_t)r->geo.depth)
		n = head - r->geo.depth;
	if (seq_diff(floor, n) > 0)
		n = floor;
	/* Relaxed: A1 comes before anything is read there.  What is passed was taken again,
	 * and who counts the holes among it walks to the head once more, by an acquire
	 * (sub_look.c). */
	for (steps = 0; steps < r->geo.depth && seq_diff(n, head) < 0; steps++, n++) {
		uint64_t w = load_relaxed(&lay_slot_at(r->mem, &r->geo, n)->ctrl);

		if (LAY_CTRL_LAP(w) == lay_lap(&r->geo, n) && LAY_CTRL_STATE(w) != LAY_GONE)
			break;
	}
	return seq_diff(n, head) > 0 ? head : n;
}

void shmq__topic_announce(struct lay_topic *rec)
{
	add_release(&rec->epoch, 1);
	shmq__futex_wake(&rec->epoch);
}

void shmq__topic_publish_member(struct shmq__topic *t, struct lay_member *m,
				enum lay_member_state state)
{
	store_release(&m->state, state); /* M1 */
	shmq__topic_announce(t->rec);
}

/* The bus tells of its clients, not of itself: what writes logs is no reader of theirs,
 * and sleeps when it has nothing to do. */
int shmq__topic_is_own_reader(const struct shmq__topic *t, const struct lay_member *m)
{
	struct lay_client *c = shmq__slabs_client(t->slabs, m->client);

	return load_relaxed(&m->state) != LAY_MEMBER_PUBLISHER && c && c->name[0] == '$';
}

void shmq__topic_add_totals(const struct shmq__topic *t, const struct lay_member *m,
			    uint64_t sum[LAY_TOTALS])
{
	int sends = load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER;
	uint64_t evicted = load_relaxed(&m->state) == LAY_MEMBER_EVICTED;
	uint32_t p;

	if (shmq__topic_is_own_reader(t, m))
		return;
	for (p = 0; p < t->geo.partitions; p++) {
		struct lay_entry *e = shmq__topic_entry(t, m, p);

		if (!e)
			continue;
		sum[sends ? LAY_TOTAL_SENT : LAY_TOTAL_RECEIVED] += load_relaxed(&e->count);
		sum[sends ? LAY_TOTAL_SENT_BYTES : LAY_TOTAL_RECEIVED_BYTES] +=
			load_relaxed(&e->bytes);
		sum[sends ? LAY_TOTAL_DROPPED : LAY_TOTAL_LOST] += load_relaxed(&e->lost);
		sum[sends ? LAY_TOTAL_BLOCKED : LAY_TOTAL_SLEPT] += load_relaxed(&e->waits);
		sum[LAY_TOTAL_WAKES] += lay_wakes(e);
		evicted |= !!(load_relaxed(&e->flags) & LAY_ENTRY_EVICTED);
	}
	sum[LAY_TOTAL_EVICTIONS] += evicted;
}

int shmq__topic_sum(const struct shmq__topic *t, uint64_t sum[LAY_TOTALS])
{
	struct shmq__roster_iter it = { 0 };
	uint32_t word = load_acquire(&t->rec->totals_word); /* T2 */
	struct lay_member *m;
	unsigned i;

	for (i = 0; i < LAY_TOTALS; i++)
		sum[i] = load_relaxed(&t->rec->total[i]);
	while ((m = shmq__topic_next_member(t, &it)))
		shmq__topic_add_totals(t, m, sum);
	fence_acquire(); /* T1 */
	return !(word & 1) && load_relaxed(&t->rec->totals_word) == word;
}

/* A supervisor that died at an odd word is succeeded by one that goes on to the
 * next even one: what it was about to add is missing then, and nothing is there
 * twice. */
void shmq__topic_remove_member(struct shmq__topic *t, struct lay_member *m)
{
	uint32_t word = load_relaxed(&t->rec->totals_word) | 1;
	uint64_t sum[LAY_TOTALS] = { 0 };
	unsigned i;

	shmq__topic_add_totals(t, m, sum);
	store_relaxed(&t->rec->totals_word, word);
	fence_release(); /* T1 */
	store_relaxed(&m->state, LAY_MEMBER_FREE);
	for (i = 0; i < LAY_TOTALS; i++)
		store_relaxed(&t->rec->total[i], load_relaxed(&t->rec->total[i]) + sum[i]);
	store_release(&t->rec->totals_word, word + 1); /* T2 */
	shmq__topic_announce(t->rec);
	shmq__topic_ring_all(t);
}

/* Highest limit of any publisher of partition p; base where none has one. */
static uint64_t highest_limit(struct shmq__topic *t, uint32_t p, uint64_t base)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;
	uint64_t high = base;

	while ((m = shmq__topic_next_member(t, &it))) {
		struct lay_entry *e;
		uint64_t limit;

		if (load_relaxed(&m->state) != LAY_MEMBER_PUBLISHER)
			continue;
		e = shmq__topic_entry(t, m, p);
		/* Relaxed: of a limit that J2 comes before, C3 comes after, and finds
		 * the joiner; what C2 came after was there at J2. */
		limit = e ? load_relaxed(&e->limit) : 0;
		if (limit && seq_diff(limit, high) > 0)
			high = limit;
	}
	return high;
}

static uint64_t start_of(struct shmq__topic *t, uint32_t p, unsigned from, uint64_t seq)
{
	struct shmq__ring *r = &t->ring[p];
	uint64_t base = r->mem->base_seq, floor = base, head;

	if (shmq__topic_gates(&t->geo)) {
		uint64_t high = highest_limit(t, p, base); /* J3 */

		if (seq_diff(high, base) > (int64_t)t->geo.depth)
			floor = high - t->geo.depth;
	}
	/* An honest limit is never more than depth past the head read after
	 * it; the clamp keeps a mad one from sending us into the future. */
	head = shmq__topic_head(r);
	if (seq_diff(floor, head) > 0)
		floor = head;
	if (from == SHMQ_FROM_OLDEST)
		return shmq__topic_oldest(r, floor);
	if (from != SHMQ_FROM_LATEST && seq_diff(seq, head) < 0)
		return shmq__topic_oldest(r, seq_diff(seq, floor) > 0 ? seq : floor);
	return head;
}

void shmq__topic_join(struct shmq__topic *t, struct lay_member *m, unsigned from, uint64_t seq)
{
	uint64_t lowest = 0;
	uint32_t p, joined = 0;

	fence_full(); /* J2 */
	for (p = 0; p < t->geo.partitions; p++) {
		struct lay_entry *e = shmq__topic_entry(t, m, p);
		uint64_t start;

		if (!e)
			continue;
		start = start_of(t, p, from,
				 from == SHMQ__FROM_ENTRY ? load_relaxed(&e->pos) : seq);
		store_relaxed(&e->pos, start); /* no payload was read yet */
		if (!joined++ || seq_diff(start, lowest) < 0)
			lowest = start;
		bell_look(&t->ring[p].bells->credit, SHMQ__FENCE_FULL);
	}
	m->start = lowest;
}

void shmq__topic_refuse(struct shmq__topic *t, enum lay_ring_state soon)
{
	uint32_t p;

	for (p = 0; p < t->geo.partitions; p++)
		if (load_relaxed(&t->ring[p].mem->state) == LAY_RING_LIVE)
			store_relaxed(&t->ring[p].mem->state, soon); /* N3 */
	fence_full();
	shmq__membarrier(); /* N4 */
}

void shmq__topic_close_rings(struct shmq__topic *t, enum lay_ring_state state)
{
	uint32_t p;

	for (p = t->geo.partitions; p-- > 0;)
		store_release(&t->ring[p].mem->state,
			      lay_ring_is_left(load_relaxed(&t->ring[p].mem->state)) ?
				      LAY_RING_MOVED :
				      state); /* N5 */
}

void shmq__topic_end(struct shmq__topic *t)
{
	store_relaxed(&t->rec->state, LAY_TOPIC_ENDED); /* the announcement releases it */
	shmq__topic_refuse(t, LAY_RING_ENDING);
	shmq__topic_close_rings(t, LAY_RING_ENDED);
	shmq__topic_announce(t->rec);
	shmq__topic_ring_all(t);
}

void shmq__topic_ring_all(struct shmq__topic *t)
{
	uint32_t p;

	for (p = 0; p < t->geo.partitions; p++) {
		bell_look(&t->ring[p].bells->data, SHMQ__FENCE_FULL);
		bell_look(&t->ring[p].bells->credit, SHMQ__FENCE_FULL);
	}
}
