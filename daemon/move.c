/* SPDX-License-Identifier: MIT
 *
 * move: a topic goes on in fresh rings of the same shape, under the same
 * name, where a process that can neither be killed nor go on holds a slot
 * of the old ones.
 *
 * The rings are populated first, while the old ones are still in use.  Then,
 * in one go:
 *   V1 the old ones say MOVING: publishers are refused from then on
 *   V2 the new ones begin where those end, and the old ones say where
 *   V3 the new record becomes LIVE
 *   V4 the old rings say MOVED, the old record ENDED: subscribers are told
 *
 * V3 decides.  A worker killed before it leaves the old topic to go on
 * (registry_attach() takes MOVING back), of which subscribers have heard nothing:
 * were they told before, they would leave rings that are written on, and where they
 * come back, or a pattern's does not, miss that.  Publishers were refused and come
 * back.  After V3 there are two LIVE topics, of which adoption ends the older, and
 * that makes V4 good (end_older(), shmq__topic_end()).
 *
 * What a publisher is refused it has committed before it looked, and who reads the
 * old ring sees it.  If it did that after V2 looked for the end it has a seq that the
 * new ring gives to another message: so subscribers are told where that begins, not
 * to go on behind what they have read.  A log must not have it: the tailer looks at
 * the state after it has read.  As V2's look, after the fence of V1, did not see
 * what was committed, whoever sees that sees V1, too, and waits for V4 or for V1 to
 * be taken back (shmq__sub_is_sent()).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "create.h"
#include "give.h"
#include "job.h"
#include "settle.h"

struct move {
	struct job job;
	struct control *c;
	struct conn_later later;
	char name[SHMQ_NAME_MAX + 1];
	uint64_t topic_id;
	struct lay_topic rec;
	struct registry_range range;
	int is_to_lock, node;
	int is_limited; /* who asked has limits, so its creator's count */
	struct memory_wait wait;
};

/* The same client asks again for what it may not know to be done. */
static int is_done(const struct move *m, const struct topic *t)
{
	return t && t->rec->creator_nonce == m->rec.creator_nonce &&
	       t->rec->creator_token == m->rec.creator_token;
}

static int refuse_missing(struct shmq__why *why, const char *name)
{
	return shmq__fail(why, SHMQ_ENOTOPIC, "there is no topic \"%s\"", name);
}

static void locked(void *arg, struct topic *t, int error, const struct shmq__why *why)
{
	(void)arg;
	t->rec->locked = !error;
	if (error)
		log_warn("topic \"%s\" is not locked in memory: %s", t->rec->name, why->text);
}

static void begin_rings(struct move *m, const struct topic *old, const struct topic *fresh,
			const struct lay_geometry *geo, char *mem)
{
	uint32_t count = geo->partitions, p;
	struct lay_partition *part = shmq__slabs_at(m->c->reg->slabs, fresh->rec->partition_array,
						    count * sizeof(*part));

	for (p = 0; p < count; p++) {
		const struct lay_partition *was = old->attached->ring[p].part;

		part[p].base_seq = shmq__topic_head(&old->attached->ring[p]);
		store_relaxed(&old->attached->ring[p].mem->moved_seq, part[p].base_seq);
		/* The tailer reads the old rings to their ends first. */
		store_relaxed(&part[p].log_written, load_relaxed(&was->log_written));
		store_relaxed(&part[p].log_synced, load_relaxed(&was->log_synced));
		store_relaxed(&part[p].log_first, load_relaxed(&was->log_first));
		shmq__layout_init_ring(mem + (count - 1 - p) * geo->ring_bytes,
				       m->c->reg->head->version, geo, fresh->rec->id, p,
				       part[p].base_seq);
	}
}

static void end_old(struct control *c, struct topic *old, const struct peer *by)
{
	shmq__topic_close_rings(old->attached, LAY_RING_MOVED); /* V4 */
	store_release(&old->rec->state, LAY_TOPIC_ENDED);
	registry_forget_name(c->reg, old);
	shmq__topic_announce(old->rec);
	shmq__topic_ring_all(old->attached);
	conn_push(c, old, SHMQ_EVENT_ENDED, 0, by, NULL);
	create_reap_topic(c, old);
}

/* The rings are populated.  On failure, and for a move that was made already,
 * the range is free again, but not after POOL_COMING. */
static int finish(struct move *m, const struct peer *by, struct shmq__why *why)
{
	struct registry *r = m->c->reg;
	struct topic *old = registry_find(r, m->name), *fresh;
	struct lay_geometry geo;
	void *mem = NULL;
	int error = 0;

	if (is_done(m, old))
		goto out;
	error = !old || old->creation || old->rec->id != m->topic_id ?
			refuse_missing(why, m->name) :
			registry_attach(r, old, why);
	if (!error && m->is_limited) /* more may have been asked for at the same time */
		error = limits_move(m->c, old->rec, m->range.bytes, why);
	if (!error)
		error = shmq__layout_geometry(&m->rec, &geo);
	if (!error)
		error = registry_map(r, &m->range, &mem);
	if (!error)
		error = registry_add_topic(r, &m->rec, m->name, &m->range, &fresh, why);
	if (error == POOL_COMING) {
		registry_unmap(r, &m->range, mem);
		return error;
	}
	if (error)
		goto out;
	/* A publisher that commits after this returns SHMQ_EMOVED; what others
	 * committed before counts in the head. */
	shmq__topic_refuse(old->attached, LAY_RING_MOVING); /* V1 */
	begin_rings(m, old, fresh, &geo, mem);              /* V2 */
	if (m->range.is_warm)
		fresh->rec->node_actual = create_read_node(mem, m->range.bytes);
	registry_unmap(r, &m->range, mem);
	watch_seat(m->c, fresh);          /* publishers are refused: memory is not waited for */
	registry_publish_topic(r, fresh); /* V3 */
	log_info("topic \"%s\" moved to fresh rings%s%s", m->name, by ? " by " : "",
		 by ? conn_peer_text(by) : "");
	end_old(m->c, old, by);
	if (m->is_to_lock)
		work_lock(m->c->work, fresh, WORK_LATER, locked, NULL);
	return 0;
out:
	work_free(m->c->work, &m->range, mem && !registry_is_shared_map(r, mem) ? mem : NULL);
	return error;
}

static void conclude_again(struct memory_wait *wait);

static void conclude(struct move *m, int error, const struct shmq__why *told)
{
	struct control *c = m->c;
	struct shmq__why why = *told;

	if (error)
		work_free(c->work, &m->range, NULL);
	else
		error = finish(m, m->later.conn ? m->later.conn->peer : NULL, &why);
	if (error == POOL_COMING) {
		control_await_memory(c, &m->wait, conclude_again);
		return;
	}
	if (conn_answer_later(&m->later, error, &why, NULL, 0) && error)
		log_warn("topic \"%s\" was not moved: %s", m->name,
			 *why.text ? why.text : shmq_strerror(error));
	loop_free(c->loop, m);
	control_maybe_idle(c);
}

static void conclude_again(struct memory_wait *wait)
{
	struct shmq__why why = { "" };

	conclude(loop_container(wait, struct move, wait), 0, &why);
}

static void populated(struct job *job, int error, const struct place_result *result,
		      const struct shmq__why *why)
{
	struct move *m = loop_container(job, struct move, job);

	m->rec.node_actual = result->node_actual;
	conclude(m, error, why);
}

static void abandon(void *pending)
{
	struct move *m = pending;

	/* It is made all the same. */
	m->later.conn = NULL;
}

static int plan(struct exchange *x, const struct topic *t, struct move *m)
{
	struct place_ask ask;
	struct place_answer answer;
	unsigned slab = 0;
	int error;

	m->c = x->c;
	m->topic_id = t->rec->id;
	m->rec = *t->rec;
	memcpy(m->name, t->rec->name, sizeof(m->name));
	/* By other rules than it was made under, as by those it would be now. */
	if (m->rec.mode == SHMQ_SHARED && access_lets_publish(x->c->o->access, m->name) &&
	    give_list_of(x->c, t) != access_list(x->c->o->access, m->name))
		m->rec.stall = SHMQ_STALL_REPORT;
	memset(&ask, 0, sizeof(ask)); /* compared whole */
	ask.piece_bytes = shmq__layout_ring_bytes(m->rec.depth, m->rec.slot_bytes, 12);
	ask.bytes = ask.piece_bytes * m->rec.partitions;
	ask.slab_bytes = LAY_BULK_SLAB_BYTES;
	ask.pages = (enum shmq_pages)m->rec.pages_asked;
	ask.lock = (enum shmq_lock)m->rec.lock_asked;
	error = settle_plan(x, t, &ask, &answer);
	m->is_limited = !access_is_owner(&x->conn->who);
	if (!error && m->is_limited)
		error = limits_move(x->c, t->rec, answer.bytes, &x->why);
	if (error)
		return error;
	m->node = ask.node;
	m->is_to_lock = answer.lock;
	m->rec.page_shift = (uint8_t)answer.page_shift;
	m->rec.ring_bytes = answer.piece_bytes;
	m->rec.node_actual = SHMQ_NODE_ANY;
	m->rec.locked = 0;
	store_relaxed(&m->rec.publishers, 0);
	store_relaxed(&m->rec.subscribers, 0);
	memset(m->rec.note, 0, sizeof(m->rec.note));
	memcpy(m->rec.note, answer.note, strnlen(answer.note, sizeof(m->rec.note) - 1));
	m->rec.creator_nonce = load_relaxed(&x->conn->peer->rec->nonce);
	m->rec.creator_token = x->req->token;
	error = create_find_slabs(x, m->name, answer.page_shift, &slab);
	return error ? error :
		       registry_take_range(x->c->reg, slab, m->rec.node_asked, answer.bytes,
					   &m->range, &x->why);
}

int move_request(struct exchange *x)
{
	struct topic *t = registry_find(x->c->reg, x->req->topic);
	struct move *m;
	int error;

	if (!t || t->creation)
		return refuse_missing(&x->why, x->req->topic);
	if (control_may(x->c, x->conn, x->req->topic, ACCESS_ADMIN, &x->why))
		return SHMQ_EACCESS;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->rec.creator_nonce = load_relaxed(&x->conn->peer->rec->nonce);
	m->rec.creator_token = x->req->token;
	error = is_done(m, t) ? 0 : plan(x, t, m);
	if (error || is_done(m, t)) {
		free(m);
		return error;
	}
	conn_defer(x, &m->later, m, abandon);
	if (m->range.is_warm) {
		conclude(m, 0, &x->why);
		return CONN_LATER;
	}
	error = job_start(&m->job, x->c, &m->range, m->node, NULL, NULL, populated, &x->why);
	if (error)
		conclude(m, error, &x->why);
	return CONN_LATER;
}
