/* SPDX-License-Identifier: MIT */
#include "create.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "job.h"
#include "clock.h"
#include "durable.h"
#include "give.h"
#include "name.h"

#define PLAN_NS UINT64_C(50000000)

/* Until its first publisher comes such a topic is anywhere (settle.c). */
static int node_now(int asked)
{
	return asked == SHMQ_NODE_PUBLISHER ? SHMQ_NODE_ANY : asked;
}

/* ---- shape: what a request asks for, and where it would come from ---- */

struct shape {
	struct shmq_topic_options o;
	struct place_answer answer;
	struct lay_topic rec; /* filled as far as it is known */
	uint64_t control_bytes;
	int is_configured;
};

static void fill_record(struct shape *s)
{
	const struct shmq_topic_options *o = &s->o;
	struct lay_topic *rec = &s->rec;

	rec->depth = o->depth;
	rec->max_bytes = o->max_message_bytes;
	rec->slot_bytes = o->slot_bytes;
	rec->inline_bytes = shmq__layout_inline_bytes(o->slot_bytes, o->flags);
	rec->partitions = o->partitions;
	rec->flags = o->flags;
	rec->mode = (uint8_t)o->mode;
	rec->policy = (uint8_t)o->policy;
	rec->stall = (uint8_t)o->stall;
	rec->wait = (uint8_t)o->wait;
	rec->pages_asked = (uint8_t)o->pages;
	rec->lock_asked = (uint8_t)o->lock;
	rec->log = (uint8_t)o->log;
	rec->sync = (uint8_t)o->sync;
	rec->sync_ns = o->sync_ns;
	rec->segment_bytes = o->segment_bytes;
	rec->retain_bytes = o->retain_bytes;
	rec->retain_ns = o->retain_ns;
	rec->tombstone_ns = o->tombstone_ns;
	rec->compress = (uint32_t)o->compress;
	rec->page_shift = (uint8_t)s->answer.page_shift;
	rec->node_asked = o->node;
	rec->evict_ns = o->evict_ns;
	rec->block_timeout_ns = o->block_timeout_ns;
	rec->arena_bytes = shmq__layout_arena_bytes(rec->max_bytes, rec->inline_bytes, rec->depth);
	rec->ring_bytes = s->answer.piece_bytes;
	snprintf(rec->note, sizeof(rec->note), "%s", s->answer.note);
}

/* Asking the machine for all its limits takes longer than all the rest of a
 * small creation: for thousands in a row one answer is good for a moment.
 * It decides nothing: the memory is taken, and refused, by the pool. */
static int is_just_planned(const struct control *c, const struct place_ask *ask)
{
	return !memcmp(ask, &c->plan.ask, sizeof(*ask)) &&
	       shmq__clock_monotonic_ns() < c->plan.until_ns;
}

static void remember_plan(struct control *c, const struct place_ask *ask,
			  const struct place_answer *answer)
{
	if (answer->bytes > REGISTRY_SMALL_BYTES || *answer->note)
		return;
	c->plan.ask = *ask;
	c->plan.answer = *answer;
	c->plan.until_ns = shmq__clock_monotonic_ns() + PLAN_NS;
}

static int is_shortage(int error)
{
	return error == SHMQ_ENOMEMORY || error == SHMQ_ENOHUGE || error == SHMQ_EMEMLOCK ||
	       error == SHMQ_ELIMIT;
}

/* Memory of topics that were just removed may still be on its way back. */
int create_plan(struct exchange *x, struct place_ask *ask, struct place_answer *answer)
{
	struct control *c = x->c;
	unsigned freeing = 0;
	int error;

	ask->is_huge_gone = x->is_anew;
	if (is_just_planned(c, ask)) {
		*answer = c->plan.answer;
		return 0;
	}
	error = place_plan(c->place, ask, answer, &x->why);
	if (is_shortage(error))
		freeing = work_freeing(c->work, WORK_ALL_PAGES);
	else if (!error && *answer->note)
		freeing = work_freeing(c->work, WORK_HUGEPAGES);
	if (freeing && !x->is_last)
		return POOL_COMING;
	if (!error)
		remember_plan(c, ask, answer);
	return error;
}

/* Only where the tailer may write, and has a thread for its device. */
static int check_log_dir(struct exchange *x, const struct proto_request *req)
{
	const char *dir = req->log_dir;

	if (!*dir)
		return 0;
	if (!memchr(dir, 0, sizeof(req->log_dir)))
		return -EPROTO;
	if (req->create.log <= SHMQ_LOG_NONE)
		return shmq__fail(&x->why, SHMQ_EOPTION, "log_dir: a topic without a log has none");
	if (durable_is_log_dir(x->c->o->log_dirs, dir))
		return 0;
	return shmq__fail(&x->why, SHMQ_EOPTION,
			  "log_dir: %.180s is none of this bus's: name it in --log-dirs, when "
			  "shmqd starts",
			  dir);
}

/* Who can write a ring can write a claim there in the name of whoever has it open, and
 * who then stands still is killed for it: of several uids only where the owner said so. */
static void choose_stall(const struct exchange *x, struct shmq_topic_options *o)
{
	int is_owners = x->conn ? access_is_owner(&x->conn->who) : x->is_configured;

	if (o->mode == SHMQ_SHARED && !(o->stall && is_owners) &&
	    access_lets_publish(x->c->o->access, x->req->topic))
		o->stall = SHMQ_STALL_REPORT;
}

static int find_shape(struct exchange *x, struct shape *s)
{
	struct place_ask ask;
	int error;

	memset(s, 0, sizeof(*s));
	memset(&ask, 0, sizeof(ask)); /* compared whole */
	proto_get_options(&x->req->create, &s->o);
	choose_stall(x, &s->o);
	error = x->conn ? reply_check(x->conn, x->req, &x->why) :
			  shmq__name_check_topic(x->req->topic, SHMQ__NAME_BUS, &x->why);
	if (!error)
		error = shmq__layout_defaults(&s->o, x->why.text, sizeof(x->why.text));
	if (!error)
		error = check_log_dir(x, x->req);
	if (error)
		return error;
	ask.piece_bytes = shmq__layout_ring_bytes(s->o.depth, s->o.slot_bytes, 12);
	ask.slab_bytes = LAY_BULK_SLAB_BYTES;
	ask.pages = s->o.pages;
	ask.node = node_now(s->o.node);
	ask.lock = s->o.lock;
	ask.bytes = ask.piece_bytes * s->o.partitions;
	if (ask.bytes > REGISTRY_BIG_BASE)
		return shmq__fail(
			&x->why, SHMQ_ELIMIT,
			"asked for %llu bytes, a slab holds %llu: ask for less depth or fewer "
			"partitions",
			(unsigned long long)ask.bytes, (unsigned long long)REGISTRY_BIG_BASE);
	error = create_plan(x, &ask, &s->answer);
	if (error)
		return error;
	fill_record(s);
	s->control_bytes =
		sizeof(struct lay_topic) + sizeof(struct lay_roster) +
		s->o.partitions * (sizeof(struct lay_partition) + sizeof(struct lay_bells));
	return 0;
}

static uint64_t growth(struct exchange *x, const struct shape *s)
{
	if (x->conn->growth_token != x->req->token) {
		x->conn->growth_token = x->req->token;
		x->conn->growth = registry_growth(x->c->reg, &s->rec,
						  access_list(x->c->o->access, x->req->topic));
	}
	return x->conn->growth;
}

static void fill_plan(struct exchange *x, const struct shape *s)
{
	struct proto_reply *reply = &x->reply;

	reply->plan.growth_bytes = growth(x, s);
	reply->plan.ring_bytes = s->answer.bytes;
	reply->plan.control_bytes = s->control_bytes;
	reply->plan.arena_bytes = s->rec.arena_bytes;
	reply->plan.depth = s->o.depth;
	reply->plan.page_bytes = UINT64_C(1) << s->answer.page_shift;
	reply->plan.available_bytes = s->answer.available_bytes;
	reply->plan.inline_bytes = s->rec.inline_bytes;
	reply->plan.node = s->o.node;
	snprintf(reply->plan.source, sizeof(reply->plan.source), "%s", s->answer.source);
	snprintf(reply->plan.note, sizeof(reply->plan.note), "%s", s->answer.note);
}

static int refuse_existing(struct exchange *x)
{
	return shmq__fail(&x->why, SHMQ_EEXISTS, "topic \"%s\" exists already", x->req->topic);
}

/* Handle a request with what its creator left open filled in.  Topics for replies are
 * the library's own.  What is put off is the request as it came. */
static int with_defaults(struct exchange *x, int (*handle)(struct exchange *x))
{
	const struct proto_request *asked = x->req;
	struct proto_request full = *asked;
	struct shmq__name_reply reply;
	int rc;

	if (!shmq__name_read_reply(full.topic, &reply)) {
		config_fill_defaults(x->c->o->config, &full.create);
		config_fill_log_dir(x->c->o->config, &full.create, full.log_dir);
	}
	x->req = &full;
	rc = handle(x);
	x->req = asked;
	return rc;
}

static int plan_request(struct exchange *x)
{
	struct shape s;
	int error = control_may(x->c, x->conn, x->req->topic, ACCESS_CREATE, &x->why);

	if (!error)
		error = find_shape(x, &s);
	if (!error)
		error = limits_create(x, s.answer.bytes);
	if (error)
		return error;
	if (registry_find(x->c->reg, x->req->topic))
		return refuse_existing(x);
	fill_plan(x, &s);
	return 0;
}

int create_plan_request(struct exchange *x)
{
	return with_defaults(x, plan_request);
}

/* ---- creation -------------------------------------------------------- */

struct creation {
	struct job job; /* populates the rings */
	struct control *c;
	struct topic *t;
	struct conn_later later;
	struct lay_geometry geo;
	uint64_t first_seq;
	uint64_t topic_id; /* copies: the registry is not mapped in the child */
	uint32_t version;
	int is_to_lock;
	int is_revived; /* nobody asked: it was there when the bus went down, or */
	int is_configured;
	struct registry_range ring;
	struct memory_wait wait; /* for seats */
	/* With a log. */
	char name[SHMQ_NAME_MAX + 1];
	char log_dir[PROTO_LOG_DIR_BYTES]; /* or "" */
	struct proto_options options;
	struct durable_begin *log; /* of one with a log; shared with the child */
};

static size_t log_bytes(const struct creation *cr)
{
	return sizeof(*cr->log) + cr->options.partitions * sizeof(cr->log->next[0]);
}

/* In the populating child, or in the worker for warm memory. */
static void init_rings(void *mem, void *arg)
{
	struct creation *cr = arg;
	uint32_t count = cr->geo.partitions, p;

	for (p = 0; p < count; p++)
		shmq__layout_init_ring((char *)mem + (count - 1 - p) * cr->geo.ring_bytes,
				       cr->version, &cr->geo, cr->topic_id, p,
				       cr->log ? cr->log->next[p] : cr->first_seq);
}

static void free_creation(struct creation *cr)
{
	if (cr->log)
		munmap(cr->log, log_bytes(cr));
	loop_free(cr->c->loop, cr);
}

#define CREATION_ANEW 1u
#define CREATION_CONFIGURED 2u
static void revive_without(struct creation *cr, int error, const struct shmq__why *why);

static void discard(struct creation *cr, int error, const struct shmq__why *why)
{
	struct control *c = cr->c;
	struct registry_range ring;
	void *mem;

	mem = work_forget(c->work, cr->t);
	registry_forget_name(c->reg, cr->t);
	registry_drop_topic(c->reg, cr->t, &ring);
	work_free(c->work, &ring, mem);
	if (cr->log && cr->log->is_made) /* it would come back with the next start */
		durable_unmake(c->log_dir, cr->name);
	if (conn_answer_later(&cr->later, error, why, NULL, 0))
		log_info("topic \"%s\" was not created: %s", cr->name,
			 *why->text ? why->text : shmq_strerror(error));
	if (cr->is_revived) {
		c->reviving--;
		revive_without(cr, error, why);
	}
	free_creation(cr);
	control_maybe_idle(c);
}

static void finish_again(struct memory_wait *wait);

static void finish(struct creation *cr)
{
	struct topic *t = cr->t;

	if (watch_seat(cr->c, t) == POOL_COMING) {
		control_await_memory(cr->c, &cr->wait, finish_again);
		return;
	}
	t->creation = NULL;
	registry_publish_topic(cr->c->reg, t);
	if (cr->log)
		link_say(cr->c->link.fd, LINK_LOGS);
	cr->c->reviving -= (unsigned)cr->is_revived;
	log_info("topic \"%s\" created: %u x %llu bytes, %u KiB pages%s%s%s", t->rec->name,
		 t->rec->partitions, (unsigned long long)t->rec->ring_bytes,
		 1u << (t->rec->page_shift - 10), t->rec->locked ? ", locked" : "",
		 *t->rec->note ? "; " : "", t->rec->note);
	conn_answer_later(&cr->later, 0, NULL, NULL, 0);
	reply_was_made(cr->c, t);
	events_topic_made(cr->c, t);
	free_creation(cr);
}

static void finish_again(struct memory_wait *wait)
{
	finish(loop_container(wait, struct creation, wait));
}

static void add_note(struct lay_topic *rec, const char *text)
{
	size_t used = strlen(rec->note);

	snprintf(rec->note + used, sizeof(rec->note) - used, "%snot locked: %s", used ? "; " : "",
		 text);
}

static void locked(void *arg, struct topic *t, int error, const struct shmq__why *why)
{
	struct creation *cr = arg;

	if (error && t->rec->lock_asked == SHMQ_LOCK_ALWAYS) {
		discard(cr, error, why);
		return;
	}
	t->rec->locked = !error;
	if (error) {
		/* Others locked memory since it was planned. */
		add_note(t->rec, why->text);
		memcpy(cr->later.reply.plan.note, t->rec->note, sizeof(t->rec->note));
		cr->c->plan.until_ns = 0;
	}
	finish(cr);
}

static void lock_or_finish(struct creation *cr)
{
	if (cr->is_to_lock)
		work_lock(cr->c->work, cr->t, WORK_HURRY, locked, cr);
	else
		finish(cr);
}

static void populated(struct job *job, int error, const struct place_result *result,
		      const struct shmq__why *why)
{
	struct creation *cr = loop_container(job, struct creation, job);

	if (error) {
		discard(cr, error, why);
		return;
	}
	cr->t->rec->node_actual = result->node_actual;
	cr->t->rec->page_shift = (uint8_t)__builtin_ctzll(result->page_bytes);
	lock_or_finish(cr);
}

/* Where the pages of a warm range are; as populate.c does it. */
int create_read_node(void *mem, uint64_t bytes)
{
	enum { CHUNK = 512 };
	void *pages[CHUNK];
	int status[CHUNK], node = -1, i, n;
	uint64_t at;

	for (at = 0; at < bytes; at += (uint64_t)n * LAY_PAGE) {
		n = bytes - at < CHUNK * LAY_PAGE ? (int)((bytes - at) / LAY_PAGE) : CHUNK;
		for (i = 0; i < n; i++)
			pages[i] = (char *)mem + at + (uint64_t)i * LAY_PAGE;
		if (syscall(SYS_move_pages, 0, n, pages, NULL, status, 0))
			return SHMQ_NODE_ANY;
		for (i = 0; i < n; i++) {
			if (status[i] < 0 || (node >= 0 && status[i] != node))
				return SHMQ_NODE_ANY;
			node = status[i];
		}
	}
	return node < 0 ? SHMQ_NODE_ANY : SHMQ_NODE(node);
}

static void init_warm(struct creation *cr, const struct registry_range *ring)
{
	struct shmq__why why = { "" };
	void *mem;
	int error = registry_map(cr->c->reg, ring, &mem);

	if (error) {
		shmq__fail(&why, error, "mapping the rings: %s", shmq_strerror(error));
		discard(cr, error, &why);
		return;
	}
	init_rings(mem, cr);
	cr->t->rec->node_actual = create_read_node(mem, ring->bytes);
	registry_unmap(cr->c->reg, ring, mem);
	lock_or_finish(cr);
}

static void abandon(void *pending)
{
	struct creation *cr = pending;

	/* The topic is made all the same; its creator may come back and ask. */
	cr->later.conn = NULL;
}

/* ---- logs ------------------------------------------------------------ */

/* In a child: reading what a crash left takes its time. */
static int prepare_log(void *arg, struct shmq__why *why)
{
	struct creation *cr = arg;

	return durable_prepare(cr->c->log_dir, cr->log_dir, cr->name, &cr->options, cr->first_seq,
			       cr->log, why);
}

static int begin_rings(struct creation *cr, struct shmq__why *why)
{
	if (cr->ring.is_warm) {
		init_warm(cr, &cr->ring);
		return 0;
	}
	return job_start(&cr->job, cr->c, &cr->ring, node_now(cr->t->rec->node_asked), init_rings,
			 cr, populated, why);
}

static void log_prepared(struct job *job, int error, const struct place_result *result,
			 const struct shmq__why *told)
{
	struct creation *cr = loop_container(job, struct creation, job);
	struct lay_partition *part = shmq__slabs_at(cr->c->reg->slabs, cr->t->rec->partition_array,
						    cr->geo.partitions * sizeof(*part));
	struct shmq__why why = *told;
	uint32_t p;

	(void)result;
	for (p = 0; !error && p < cr->geo.partitions; p++) {
		part[p].base_seq = cr->log->next[p];
		store_relaxed(&part[p].log_written, cr->log->next[p]);
		store_relaxed(&part[p].log_synced, cr->log->next[p]);
		store_relaxed(&part[p].log_first, cr->log->next[p]);
	}
	if (!error)
		error = begin_rings(cr, &why);
	if (error)
		discard(cr, error, &why);
}

static int begin_log(struct creation *cr, struct shmq__why *why)
{
	if (!*cr->c->log_dir)
		return shmq__fail(why, SHMQ_EOPTION, "%s", cr->c->log_why.text);
	cr->log = mmap(NULL, log_bytes(cr), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		       0);
	if (cr->log == MAP_FAILED) {
		cr->log = NULL;
		return shmq__fail(why, -ENOMEM, "no memory to make the log with");
	}
	return job_run(&cr->job, cr->c, prepare_log, cr, log_prepared, why);
}

int create_find_slabs(struct exchange *x, const char *topic, unsigned page_shift, unsigned *rings)
{
	struct registry *r = x->c->reg;
	uint64_t list = access_list(x->c->o->access, topic);
	unsigned bells;
	int error = give_find(x->c, LAY_SLAB_BELL, 12, list, r->uid, &bells, &x->why);

	if (error && error != POOL_COMING)
		return error;
	/* Both are asked for before either is waited for. */
	return give_find(x->c, LAY_SLAB_RING, page_shift, list, r->uid, rings, &x->why) ?: error;
}

/* Nobody waits for it if x has no connection. */
static int begin(struct exchange *x, struct shape *s)
{
	struct control *c = x->c;
	struct registry_range ring;
	struct creation *cr;
	unsigned slab = 0;
	int error = create_find_slabs(x, x->req->topic, s->answer.page_shift, &slab);

	if (!error)
		error = registry_take_range(c->reg, slab, s->o.node, s->answer.bytes, &ring,
					    &x->why);
	if (error)
		return error;
	ring.base_seq = c->o->first_seq;
	cr = calloc(1, sizeof(*cr));
	error = cr ? shmq__layout_geometry(&s->rec, &cr->geo) : -ENOMEM;
	if (!error)
		error = registry_add_topic(c->reg, &s->rec, x->req->topic, &ring, &cr->t, &x->why);
	if (error) {
		registry_free_range(c->reg, &ring); /* nothing was populated for it */
		free(cr);
		return error;
	}
	cr->c = c;
	cr->ring = ring;
	cr->first_seq = ring.base_seq;
	cr->topic_id = cr->t->rec->id;
	cr->version = c->reg->head->version;
	cr->is_to_lock = s->answer.lock;
	proto_put_options(&s->o, &cr->options);
	cr->t->creation = cr;
	memcpy(cr->name, cr->t->rec->name, sizeof(cr->name));
	memcpy(cr->log_dir, x->req->log_dir, sizeof(cr->log_dir));
	if (x->conn) {
		conn_defer(x, &cr->later, cr, abandon);
	} else {
		cr->is_revived = 1;
		cr->is_configured = s->is_configured;
		cr->later.is_anew = x->is_anew;
		c->reviving++;
	}
	error = s->o.log > SHMQ_LOG_NONE ? begin_log(cr, &x->why) : begin_rings(cr, &x->why);
	if (error)
		discard(cr, error, &x->why);
	return CONN_LATER;
}

/* The same client asks again for what it may not know to be done. */
static int is_retry(const struct exchange *x, const struct topic *t)
{
	return t->rec->creator_nonce == load_relaxed(&x->conn->peer->rec->nonce) &&
	       t->rec->creator_token == x->req->token;
}

static int make_request(struct exchange *x)
{
	struct topic *t = registry_find(x->c->reg, x->req->topic);
	struct creation *cr = t ? t->creation : NULL;
	struct shape s;
	int error;

	if (control_may(x->c, x->conn, x->req->topic, ACCESS_CREATE, &x->why))
		return SHMQ_EACCESS;
	if (t && !is_retry(x, t))
		return refuse_existing(x);
	error = find_shape(x, &s);
	if (!error && !t)
		error = limits_create(x, s.answer.bytes);
	if (error)
		return t ? 0 : error;
	fill_plan(x, &s);
	if (t && !cr)
		return 0;
	if (t && cr->later.conn && cr->later.conn != x->conn) {
		/* The same client came back before we saw it go; or another
		 * that read its nonce, which is told nothing. */
		if (cr->later.conn->peer != x->conn->peer)
			return refuse_existing(x);
		conn_close(cr->later.conn);
	}
	if (t) {
		conn_defer(x, &cr->later, cr, abandon);
		return CONN_LATER;
	}
	s.rec.creator_nonce = load_relaxed(&x->conn->peer->rec->nonce);
	s.rec.creator_token = x->req->token;
	s.rec.creator_uid = x->conn->who.uid;
	return begin(x, &s);
}

int create_request(struct exchange *x)
{
	return with_defaults(x, make_request);
}

/* ---- topics of logs -------------------------------------------------- */

/* One that is to be made again, and waits for memory. */
struct revival {
	struct memory_wait wait;
	struct control *c;
	struct proto_request req;
	int is_anew;
	uint64_t creator_nonce, creator_token; /* of who may ask for it, or 0 */
	uint32_t creator_uid;
	int is_configured; /* not made again: the configuration names it */
};

static void say_not_made(struct control *c, const char *topic, int is_configured, const char *text)
{
	if (events_is_topic(topic))
		events_topic_failed(c);
	if (is_configured)
		log_error("topic \"%s\" of the configuration could not be made: %s", topic, text);
	else
		log_error("topic \"%s\" could not be made again, its log stays as it is: %s", topic,
			  text);
}

static void try_to_revive(struct revival *r);

static void revive_again(struct memory_wait *wait)
{
	struct revival *r = loop_container(wait, struct revival, wait);

	r->c->reviving--;
	try_to_revive(r);
}

static void try_to_revive(struct revival *r)
{
	struct exchange x = { .c = r->c,
			      .req = &r->req,
			      .own_fd = -1,
			      .is_anew = r->is_anew,
			      .is_configured = r->is_configured };
	struct shape s;
	int error;

	/* Somebody else may have made it while this one waited. */
	if (registry_find(r->c->reg, r->req.topic)) {
		free(r);
		return;
	}
	x.is_last = !work_freeing(r->c->work, WORK_ALL_PAGES);
	error = find_shape(&x, &s);
	if (!error) {
		s.is_configured = r->is_configured;
		s.rec.creator_nonce = r->creator_nonce;
		s.rec.creator_token = r->creator_token;
		s.rec.creator_uid = r->creator_uid;
		error = begin(&x, &s);
	}
	if (error == POOL_COMING) {
		r->c->reviving++;
		control_await_memory(r->c, &r->wait, revive_again);
		return;
	}
	if (error && error != CONN_LATER)
		say_not_made(r->c, r->req.topic, r->is_configured,
			     *x.why.text ? x.why.text : shmq_strerror(error));
	free(r);
}

/* The worker before may have died while it made the topic.  Who asked it to asks
 * again, and is told that it is made: its record says who. */
static void find_creator(const struct control *c, struct revival *r)
{
	const struct lay_topic *rec;
	uint64_t id = 0;
	uint32_t i;

	for (i = 0; (rec = shmq__slabs_topic(c->reg->slabs, i)); i++) {
		if (rec->id <= id || strncmp(rec->name, r->req.topic, sizeof(rec->name)) != 0)
			continue;
		id = rec->id;
		r->creator_nonce = rec->creator_nonce;
		r->creator_token = rec->creator_token;
		r->creator_uid = rec->creator_uid;
	}
}

/* How: CREATION_*. */
static void revive(struct control *c, const char *topic, const struct proto_options *options,
		   const char *log_dir, unsigned how)
{
	struct revival *r = calloc(1, sizeof(*r));

	if (!r) {
		say_not_made(c, topic, how & CREATION_CONFIGURED, "no memory");
		return;
	}
	r->c = c;
	r->req.op = PROTO_CREATE;
	r->req.create = *options;
	snprintf(r->req.topic, sizeof(r->req.topic), "%s", topic);
	snprintf(r->req.log_dir, sizeof(r->req.log_dir), "%s", log_dir);
	r->is_anew = how & CREATION_ANEW;
	r->is_configured = how & CREATION_CONFIGURED;
	r->creator_uid = c->reg->uid;
	find_creator(c, r);
	try_to_revive(r);
}

/* As conn_answer_later() does for who asked. */
static void revive_without(struct creation *cr, int error, const struct shmq__why *why)
{
	if (error == SHMQ_ENOHUGE && !cr->later.is_anew)
		revive(cr->c, cr->name, &cr->options, cr->log_dir,
		       CREATION_ANEW | (cr->is_configured ? CREATION_CONFIGURED : 0));
	else
		say_not_made(cr->c, cr->name, cr->is_configured,
			     *why->text ? why->text : shmq_strerror(error));
}

static int revive_if_missing(void *arg, const char *topic, const struct proto_options *options)
{
	struct control *c = arg;
	struct topic *t = registry_find(c->reg, topic);

	if (!t)
		revive(c, topic, options, "", 0);
	else if (t->rec->log > SHMQ_LOG_NONE)
		link_say(c->link.fd, LINK_LOGS);
	return 0;
}

void create_own(struct control *c, const char *topic, const struct shmq_topic_options *o)
{
	struct proto_options options;

	proto_put_options(o, &options);
	revive(c, topic, &options, "", 0);
}

void create_configured(struct control *c)
{
	const struct config *config = c->o->config;
	struct proto_options options;
	unsigned i;

	for (i = 0; config && i < config->topic_count; i++) {
		if (registry_find(c->reg, config->topic[i].name))
			continue;
		const struct shmq_topic_options *o = &config->topic[i].options;
		char log_dir[PROTO_LOG_DIR_BYTES];

		proto_put_options(o, &options);
		config_fill_defaults(config, &options);
		snprintf(log_dir, sizeof(log_dir), "%s", o->log_dir ? o->log_dir : "");
		config_fill_log_dir(config, &options, log_dir);
		revive(c, config->topic[i].name, &options, log_dir, CREATION_CONFIGURED);
	}
}

void create_revive(struct control *c)
{
	int error = *c->log_dir ? durable_each(c->log_dir, revive_if_missing, c) : 0;

	if (error)
		log_error("looking for logs in %s: %s", c->log_dir, shmq_strerror(error));
}

/* ---- the end of a topic ---------------------------------------------- */

int create_end_topic(struct control *c, struct topic *t, const struct peer *by,
		     struct shmq__why *why)
{
	int error = 0;

	if (load_relaxed(&t->rec->state) != LAY_TOPIC_LIVE)
		return 0;
	/* Without handles nobody has to be told, and it is not mapped. */
	if (!LIST_EMPTY(&t->handles))
		error = registry_attach_to_end(c->reg, t, why);
	if (error)
		return error;
	if (LIST_EMPTY(&t->handles))
		store_release(&t->rec->state, LAY_TOPIC_ENDED);
	else
		shmq__topic_end(t->attached);
	conn_push(c, t, SHMQ_EVENT_ENDED, 0, by, NULL);
	registry_forget_name(c->reg, t);
	return 0;
}

void create_reap_topic(struct control *c, struct topic *t)
{
	struct registry_range ring;
	void *mem;

	if (load_relaxed(&t->rec->state) != LAY_TOPIC_ENDED || !LIST_EMPTY(&t->handles) ||
	    t->is_settling)
		return;
	log_info("topic \"%s\" is gone", t->rec->name);
	stall_forget_topic(c, t);
	mem = work_forget(c->work, t);
	orphan_free_topic(c, t);
	registry_drop_topic(c->reg, t, &ring);
	work_free(c->work, &ring, mem);
	registry_count_bytes(c->reg);
}

static int is_in_use(const struct topic *t)
{
	const struct handle *h;

	LIST_FOREACH (h, &t->handles, of_topic)
		if (*h->peer->rec->name != '$' && !proto_is_of_watch(h->token))
			return 1;
	return 0;
}

static int refuse_in_use(struct exchange *x, const struct topic *t)
{
	return shmq__fail(
		&x->why, SHMQ_EINUSE,
		"topic \"%s\" is open (publishers: %u, subscribers: %u): close them, or remove "
		"it by force",
		t->rec->name, load_relaxed(&t->rec->publishers),
		load_relaxed(&t->rec->subscribers));
}

static void remove_log(struct control *c, const struct topic *t)
{
	int error = durable_remove(c->log_dir, t->rec->name);

	if (error)
		log_error("removing the log of \"%s\" in %s: %s", t->rec->name, c->log_dir,
			  shmq_strerror(error));
}

/* Made by the same uid, which may still make it. */
static int is_own(const struct exchange *x, const struct topic *t)
{
	return t->rec->creator_uid == x->conn->who.uid &&
	       !control_may(x->c, x->conn, t->rec->name, ACCESS_CREATE, NULL);
}

int create_remove_request(struct exchange *x)
{
	struct peer *p = x->conn->peer;
	struct topic *t = registry_find(x->c->reg, x->req->topic);
	int error;

	if (x->req->remove.flags & ~SHMQ_FORCE)
		return shmq__fail(&x->why, SHMQ_EOPTION, "remove: unknown flag");
	if (p->removed && p->removed == x->req->token)
		return 0;
	if (!t || t->creation)
		return shmq__fail(&x->why, SHMQ_ENOTOPIC, "there is no topic \"%s\"",
				  x->req->topic);
	if (!is_own(x, t) && control_may(x->c, x->conn, x->req->topic, ACCESS_ADMIN, &x->why))
		return SHMQ_EACCESS;
	death_hurry(x->c, t);
	if (is_in_use(t) && !(x->req->remove.flags & SHMQ_FORCE))
		return refuse_in_use(x, t);
	/* What can fail comes first. */
	error = LIST_EMPTY(&t->handles) ? 0 : registry_attach_to_end(x->c->reg, t, &x->why);
	if (error)
		return error;
	t->rec->creator_nonce = load_relaxed(&p->rec->nonce);
	t->rec->creator_token = x->req->token;
	p->removed = x->req->token;
	log_info("topic \"%s\" removed by %s", t->rec->name, conn_peer_text(x->conn->peer));
	if (t->rec->log > SHMQ_LOG_NONE)
		remove_log(x->c, t);
	error = create_end_topic(x->c, t, x->conn->peer, &x->why);
	registry_announce(x->c->reg);
	create_reap_topic(x->c, t);
	return error;
}

/* ---- adoption -------------------------------------------------------- */

static void relocked(void *arg, struct topic *t, int error, const struct shmq__why *why)
{
	struct control *c = arg;

	if (!error)
		return;
	t->rec->locked = 0;
	log_warn("topic \"%s\" is no longer locked in memory: %s", t->rec->name, why->text);
	events_say(c, SHMQ_SYS_FALLBACK, NULL, t->rec->name, "no longer locked in memory: %s",
		   why->text);
}

void create_relock(struct control *c, struct topic *t)
{
	if (t->rec->locked)
		work_lock(c->work, t, WORK_LATER, relocked, c);
}

void create_relock_all(struct control *c)
{
	uint32_t i;

	for (i = 0; i < c->reg->topic_capacity; i++)
		if (c->reg->topic[i])
			create_relock(c, c->reg->topic[i]);
}
