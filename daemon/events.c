/* SPDX-License-Identifier: MIT */
#include "control.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "create.h"

#define LOG_LOOK_NS UINT64_C(1000000000)
#define RETRY_NS UINT64_C(1000000000)
#define FOREVER (UINT64_C(1) << 62) /* as publishers have it whom nobody holds back */

static const char *const words[] = {
#define EVENTS_X(name, number, word) [number] = (word),
	SHMQ_SYS_EVENTS(EVENTS_X)
#undef EVENTS_X
};

int events_is_topic(const char *name)
{
	return !strcmp(name, EVENTS_TOPIC);
}

/* ---- a line of JSON ---------------------------------------------------- */

struct line {
	char text[EVENTS_LINE_BYTES];
	size_t used;
};

static void put(struct line *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct line *l, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(l->text + l->used, sizeof(l->text) - l->used, format, ap);
	va_end(ap);
	if (n > 0)
		l->used += (size_t)n;
	if (l->used >= sizeof(l->text))
		l->used = sizeof(l->text) - 1;
}

/* Names of clients are bytes, of which some are no text.  Cut short where what must
 * follow would find no room. */
static void put_text(struct line *l, const char *key, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	put(l, ",\"%s\":\"", key);
	for (; *s && l->used < sizeof(l->text) - 16; s++) {
		if (*s == '"' || *s == '\\')
			put(l, "\\%c", *s);
		else if (*s < ' ' || *s >= 0x7f)
			put(l, "\\u%04x", *s);
		else
			put(l, "%c", *s);
	}
	put(l, "\"");
}

static void write_line(struct line *l, enum shmq_sys_event type, const struct peer *peer,
		       const char *topic, const char *text)
{
	l->used = 0;
	put(l, "{\"event\":\"%s\",\"type\":%d", words[type], (int)type);
	if (peer) {
		put(l, ",\"client\":%u,\"pid\":%u,\"uid\":%u", peer->id,
		    load_relaxed(&peer->rec->pid), load_relaxed(&peer->rec->uid));
		put_text(l, "name", peer->rec->name);
	}
	if (topic)
		put_text(l, "topic", topic);
	put_text(l, "text", text);
	put(l, "}");
}

/* ---- the ring ---------------------------------------------------------- */

/* The topic once it is there, mapped; NULL. */
static struct topic *writable(struct control *c)
{
	struct topic *t = registry_find(c->reg, EVENTS_TOPIC);
	struct ring_writer *w = &c->events.w;
	struct shmq__why why = { "" };
	const struct shmq__ring *ring;

	if (!t || t->creation || registry_attach(c->reg, t, &why))
		return NULL;
	ring = &t->attached->ring[0];
	if (c->events.topic_id == t->rec->id && w->mem == ring->mem)
		return t;
	*w = (struct ring_writer){ .mem = ring->mem, .geo = ring->geo };
	shmq__ring_takeover(w);
	w->limit = w->next + FOREVER;
	w->room = w->next;
	c->events.topic_id = t->rec->id;
	return t;
}

static void write_message(struct ring_writer *w, uint16_t type, uint64_t ts, const char *text,
			  size_t bytes)
{
	struct lay_slot *s;
	struct lay_slot_extra *extra;

	if (bytes > w->geo.inline_bytes)
		return;
	if (!ring_has_room(w, 1))
		ring_make_room(w, 1, 1);
	s = lay_slot_at(w->mem, &w->geo, w->next);
	extra = (struct lay_slot_extra *)(s + 1);
	s->len = (uint32_t)bytes;
	s->flags = 0;
	s->type = type;
	extra->tag = 0;
	extra->ts = ts;
	memcpy((char *)s + w->geo.payload_off, text, bytes);
	ring_commit(w, s, w->next); /* R1 */
	w->next++;
	store_relaxed(&w->mem->tail_hint, w->next); /* R5 */
}

static void flush(struct control *c)
{
	struct events *e = &c->events;
	struct topic *t = e->count ? writable(c) : NULL;

	if (!t)
		return;
	for (; e->count; e->count--) {
		unsigned i = e->first;

		write_message(&e->w, e->kept[i].type, e->kept[i].ts, e->kept[i].text,
			      e->kept[i].bytes);
		e->first = (i + 1) % EVENTS_KEPT;
	}
	shmq__topic_ring_all(t->attached);
}

void events_say(struct control *c, enum shmq_sys_event type, const struct peer *peer,
		const char *topic, const char *format, ...)
{
	struct events *e = &c->events;
	char text[640];
	struct line l;
	va_list ap;
	unsigned i;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	write_line(&l, type, peer, topic, text);
	if (e->count == EVENTS_KEPT) {
		e->first = (e->first + 1) % EVENTS_KEPT;
		e->count--;
	}
	i = (e->first + e->count++) % EVENTS_KEPT;
	e->kept[i].ts = shmq__clock_realtime_ns();
	e->kept[i].type = (uint16_t)type;
	e->kept[i].bytes = (uint16_t)l.used;
	memcpy(e->kept[i].text, l.text, l.used);
	flush(c);
}

/* ---- the topic --------------------------------------------------------- */

int events_make(struct control *c)
{
	struct topic *t = registry_find(c->reg, EVENTS_TOPIC);
	struct shmq_topic_options o = {
		.size = sizeof(o),
		.depth = 1024,
		.slot_bytes = EVENTS_SLOT_BYTES,
		.max_message_bytes = EVENTS_LINE_BYTES,
		.policy = SHMQ_LOSSY,
		.flags = SHMQ_TOPIC_TIME,
		.pages = SHMQ_PAGES_4K,
		.lock = SHMQ_LOCK_NEVER,
	};

	if (!t && !c->events.is_coming && shmq__clock_monotonic_ns() >= c->events.again_ns) {
		c->events.is_coming = 1;
		create_own(c, EVENTS_TOPIC, &o);
	}
	return c->events.is_coming ? POOL_COMING : 0;
}

/* ---- logs -------------------------------------------------------------- */

enum { ALARM_LOW = 1, ALARM_STANDS = 2 };

static void look_at_log(struct control *c, struct topic *t)
{
	const struct lay_partition *part = shmq__slabs_at(c->reg->slabs, t->rec->partition_array,
							  t->rec->partitions * sizeof(*part));
	unsigned alarms = 0, left = 0;
	int error = 0;
	uint32_t p;

	for (p = 0; p < t->rec->partitions; p++) {
		struct lay_partition *of = (struct lay_partition *)(uintptr_t)&part[p];

		alarms |= load_relaxed(&of->log_is_low) ? ALARM_LOW : 0;
		alarms |= of->log_error ? ALARM_STANDS : 0;
		error = of->log_error ? of->log_error : error;
		left = load_relaxed(&of->log_left_mib);
	}
	if (alarms & ~t->log_alarms & ALARM_LOW)
		events_say(c, SHMQ_SYS_DISK, NULL, t->rec->name, "%u MiB are left on its disk",
			   left);
	if (alarms & ~t->log_alarms & ALARM_STANDS)
		events_say(c, SHMQ_SYS_DISK, NULL, t->rec->name, "its log stands: %s",
			   shmq_strerror(error));
	if (t->log_alarms & ~alarms & ALARM_STANDS)
		events_say(c, SHMQ_SYS_DISK, NULL, t->rec->name, "its log goes on");
	if (t->log_alarms & ~alarms & ALARM_LOW)
		events_say(c, SHMQ_SYS_DISK, NULL, t->rec->name, "its disk has room again");
	t->log_alarms = alarms;
}

static void look_at_logs(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, events.log_timer);
	unsigned logs = 0;
	uint32_t i;

	for (i = 0; i < c->reg->topic_capacity; i++) {
		struct topic *t = c->reg->topic[i];

		if (!t || t->rec->log <= SHMQ_LOG_NONE || t->creation)
			continue;
		logs++;
		look_at_log(c, t);
	}
	if (logs)
		loop_set_timer(c->loop, timer, shmq__clock_monotonic_ns() + LOG_LOOK_NS,
			       look_at_logs);
}

static void came(struct timer *timer)
{
	control_memory_came(loop_container(timer, struct control, events.made_timer));
}

/* Who waits asks again; not from here, which may be in the middle of a request. */
static void settle(struct control *c)
{
	c->events.is_coming = 0;
	loop_set_timer(c->loop, &c->events.made_timer, shmq__clock_monotonic_ns(), came);
}

void events_topic_failed(struct control *c)
{
	c->events.again_ns = shmq__clock_monotonic_ns() + RETRY_NS;
	settle(c);
}

void events_watch_logs(struct control *c)
{
	if (!c->events.log_timer.is_set)
		loop_set_timer(c->loop, &c->events.log_timer,
			       shmq__clock_monotonic_ns() + LOG_LOOK_NS, look_at_logs);
}

void events_topic_made(struct control *c, const struct topic *t)
{
	if (events_is_topic(t->rec->name)) {
		flush(c);
		settle(c);
	}
	if (*t->rec->note)
		events_say(c, SHMQ_SYS_FALLBACK, NULL, t->rec->name, "%s", t->rec->note);
	if (t->rec->log > SHMQ_LOG_NONE)
		events_watch_logs(c);
}
