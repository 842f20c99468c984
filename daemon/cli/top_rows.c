/* SPDX-License-Identifier: MIT */
#include "top.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* ---- views ----------------------------------------------------------- */

enum { T_RATE, T_BYTES, T_LAG, T_P99, T_ASLEEP, T_PUBS, T_SUBS, T_LOST, T_MEMORY };
static const struct top_column topic_columns[] = {
	{ "TOPIC", "name", 20, TOP_TEXT, 0 },
	{ "RATE", "rate", 7, TOP_RATE, T_RATE },
	{ "BYTES", "bytes_rate", 10, TOP_BYTE_RATE, T_BYTES },
	{ "LAG", "lag", 7, TOP_COUNT, T_LAG },
	{ "P99", "p99_ns", 7, TOP_TIME, T_P99 },
	{ "SLP", "sleepers", 3, TOP_COUNT, T_ASLEEP },
	{ "PUB", "publishers", 3, TOP_COUNT, T_PUBS },
	{ "SUB", "subscribers", 3, TOP_COUNT, T_SUBS },
	{ "MEMORY", "memory_bytes", 8, TOP_SIZE, T_MEMORY },
	{ "LOST", "lost", 6, TOP_COUNT, T_LOST },
	{ "HELD BACK BY", "held_back_by", 24, TOP_TEXT, 1 },
};

enum { P_PID, P_SENT, P_RECEIVED, P_LAG, P_P99, P_ASLEEP, P_OPEN, P_LOST, P_OWN, P_MAPPED };
static const struct top_column process_columns[] = {
	{ "PROCESS", "name", 16, TOP_TEXT, 0 },
	{ "PID", "pid", 7, TOP_COUNT, P_PID },
	{ "SENDS", "sent_rate", 7, TOP_RATE, P_SENT },
	{ "RECEIVES", "received_rate", 8, TOP_RATE, P_RECEIVED },
	{ "LAG", "lag", 7, TOP_COUNT, P_LAG },
	{ "SLP", "asleep", 3, TOP_COUNT, P_ASLEEP },
	{ "OPEN", "handles", 4, TOP_COUNT, P_OPEN },
	{ "OWN", "own_bytes", 8, TOP_SIZE, P_OWN },
	{ "MAPPED", "mapped_bytes", 8, TOP_SIZE, P_MAPPED },
	{ "P99", "p99_ns", 7, TOP_TIME, P_P99 },
	{ "LOST", "lost", 6, TOP_COUNT, P_LOST },
};

enum { L_BEHIND, L_UNSYNCED, L_RATE, L_BYTES };
static const struct top_column log_columns[] = {
	{ "LOG OF", "name", 24, TOP_TEXT, 0 },
	{ "BEHIND", "behind", 9, TOP_COUNT, L_BEHIND },
	{ "UNSYNCED", "unsynced", 9, TOP_COUNT, L_UNSYNCED },
	{ "WRITES", "written_rate", 8, TOP_RATE, L_RATE },
	{ "BYTES", "written_bytes_rate", 10, TOP_BYTE_RATE, L_BYTES },
	{ "ERROR", "error", 14, TOP_TEXT, 1 },
};

enum { D_RATE, D_WRITTEN };
static const struct top_column disk_columns[] = {
	{ "DISK", "dir", 48, TOP_TEXT, 0 },
	{ "DEVICE", "device", 8, TOP_TEXT, 1 },
	{ "BYTES", "written_bytes_rate", 10, TOP_BYTE_RATE, D_RATE },
	{ "WRITTEN", "written_bytes", 9, TOP_SIZE, D_WRITTEN },
};

enum { H_PID, H_RATE, H_COUNT, H_LOST, H_LAG, H_P50, H_P99, H_WAITS, H_WAKES, H_ARENA };
static const struct top_column peer_columns[] = {
	{ "PEER", "name", 16, TOP_TEXT, 0 },
	{ "DOES", "does", 12, TOP_TEXT, 1 },
	{ "PID", "pid", 7, TOP_COUNT, H_PID },
	{ "RATE", "rate", 7, TOP_RATE, H_RATE },
	{ "LAG", "lag", 7, TOP_COUNT, H_LAG },
	{ "P50", "p50_ns", 7, TOP_TIME, H_P50 },
	{ "P99", "p99_ns", 7, TOP_TIME, H_P99 },
	{ "LOST", "lost", 7, TOP_COUNT, H_LOST },
	{ "COUNT", "count", 10, TOP_COUNT, H_COUNT },
	{ "WAITS", "waits", 8, TOP_COUNT, H_WAITS },
	{ "WAKES", "wakes", 8, TOP_COUNT, H_WAKES },
	{ "ARENA", "arena_bytes", 8, TOP_SIZE, H_ARENA },
};

static const struct top_column handle_columns[] = {
	{ "TOPIC", "name", 16, TOP_TEXT, 0 },
	{ "DOES", "does", 12, TOP_TEXT, 1 },
	{ "RATE", "rate", 7, TOP_RATE, H_RATE },
	{ "LAG", "lag", 7, TOP_COUNT, H_LAG },
	{ "P50", "p50_ns", 7, TOP_TIME, H_P50 },
	{ "P99", "p99_ns", 7, TOP_TIME, H_P99 },
	{ "LOST", "lost", 7, TOP_COUNT, H_LOST },
	{ "WAITS", "waits", 8, TOP_COUNT, H_WAITS },
	{ "COUNT", "count", 10, TOP_COUNT, H_COUNT },
	{ "WAKES", "wakes", 8, TOP_COUNT, H_WAKES },
	{ "ARENA", "arena_bytes", 8, TOP_SIZE, H_ARENA },
};

static const struct top_view peers_view = {
	.what = TOP_PEERS,
	.columns = peer_columns,
	.count = ARRAY_COUNT(peer_columns),
	.sorted_by = 4,
};
static const struct top_view handles_view = {
	.what = TOP_HANDLES,
	.columns = handle_columns,
	.count = ARRAY_COUNT(handle_columns),
	.sorted_by = 2,
};
const struct top_view top_views[] = {
	{ "topics", TOP_TOPICS, topic_columns, ARRAY_COUNT(topic_columns), 1, &peers_view },
	{ "processes", TOP_PROCESSES, process_columns, ARRAY_COUNT(process_columns), 2,
	  &handles_view },
	{ "logs", TOP_LOGS, log_columns, ARRAY_COUNT(log_columns), 1, &peers_view },
	{ "disks", TOP_DISKS, disk_columns, ARRAY_COUNT(disk_columns), 2, NULL },
	{ NULL, TOP_TOPICS, NULL, 0, 0, NULL },
};

/* ---- what changed between two looks ------------------------------------ */

static double per_second(const struct top_look *before, const struct top_look *now, double change)
{
	double seconds = (double)(now->at_ns - before->at_ns) / 1e9;

	return before->at_ns && seconds > 0 && change >= 0 ? change / seconds : NAN;
}

static const struct top_topic *topic_before(const struct top_look *before, uint64_t id)
{
	size_t low = 0, high = before->topic_count, middle;

	while (low < high) {
		middle = (low + high) / 2;
		if (before->topics[middle].info.id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < before->topic_count && before->topics[low].info.id == id ?
		       &before->topics[low] :
		       NULL;
}

static int is_same(const struct shmq_peer_info *a, const struct shmq_peer_info *b)
{
	return a->client_id == b->client_id && a->role == b->role && a->partition == b->partition &&
	       a->opened_ns == b->opened_ns && a->pid == b->pid;
}

/* The rate of a handle that was not there before is not known yet. */
static double peer_rate(const struct top_look *before, const struct top_look *now,
			const struct top_peer *peer)
{
	const struct top_topic *topic = topic_before(before, now->topics[peer->topic].info.id);
	size_t i;

	for (i = 0; topic && i < topic->peers; i++) {
		const struct shmq_peer_info *then = &before->peers[topic->first_peer + i].info;

		if (is_same(then, &peer->info))
			return per_second(before, now,
					  (double)peer->info.count - (double)then->count);
	}
	return NAN;
}

/* ---- rows -------------------------------------------------------------- */

static double or_none(uint64_t n)
{
	return n ? (double)n : NAN;
}

static struct top_row *add_row(struct top_rows *rows, const char *name, uint64_t id, uint64_t part)
{
	struct top_row *row;
	unsigned i;

	rows->all = cli_grow(rows->all, rows->count, &rows->room, sizeof(*rows->all));
	row = &rows->all[rows->count++];
	*row = (struct top_row){ .id = id, .part = part };
	snprintf(row->name, sizeof(row->name), "%s", name);
	for (i = 0; i < TOP_NUMBERS; i++)
		row->number[i] = NAN;
	return row;
}

static uint64_t slowest_p99(const struct top_look *now, const struct top_topic *topic)
{
	uint64_t most = 0;
	size_t i;

	for (i = 0; i < topic->peers; i++)
		if (now->peers[topic->first_peer + i].info.p99_ns > most)
			most = now->peers[topic->first_peer + i].info.p99_ns;
	return most;
}

static void add_topics(const struct top_look *before, const struct top_look *now,
		       struct top_rows *out)
{
	size_t i;

	for (i = 0; i < now->topic_count; i++) {
		const struct top_topic *t = &now->topics[i], *then;
		const struct shmq_topic_info *info = &t->info;
		struct top_row *row = add_row(out, info->name, info->id, 0);

		then = topic_before(before, info->id);
		if (then) {
			row->number[T_RATE] =
				per_second(before, now, (double)(info->head - then->info.head));
			row->number[T_BYTES] =
				per_second(before, now,
					   (double)info->stats.sent_bytes -
						   (double)then->info.stats.sent_bytes);
		}
		if (holder_has_lag(info, &t->holder))
			row->number[T_LAG] = (double)t->holder.lag;
		row->number[T_P99] = or_none(slowest_p99(now, t));
		row->number[T_ASLEEP] = (double)info->sleepers;
		row->number[T_PUBS] = info->publishers;
		row->number[T_SUBS] = info->subscribers;
		row->number[T_LOST] = (double)info->stats.lost;
		row->number[T_MEMORY] = (double)(info->ring_bytes + info->arena_bytes);
		if (t->holder.holds_back || t->holder.claimer.client >= 0 || t->holder.log_error)
			snprintf(row->text[0], sizeof(row->text[0]), "%.63s",
				 holder_text(&t->holder).s);
	}
}

/* Bytes of the log by what a message has on the average. */
static void add_logs(const struct top_look *before, const struct top_look *now,
		     struct top_rows *out)
{
	size_t i;

	for (i = 0; i < now->topic_count; i++) {
		const struct top_topic *t = &now->topics[i], *then;
		const struct shmq_topic_stats *stats = &t->info.stats;
		struct top_row *row;

		if (t->info.log <= SHMQ_LOG_NONE)
			continue;
		row = add_row(out, t->info.name, t->info.id, 0);
		then = topic_before(before, t->info.id);
		row->number[L_BEHIND] = (double)t->log_behind;
		row->number[L_UNSYNCED] = (double)t->log_unsynced;
		if (then)
			row->number[L_RATE] =
				per_second(before, now,
					   (double)(t->log_written - then->log_written));
		if (stats->sent)
			row->number[L_BYTES] = row->number[L_RATE] * (double)stats->sent_bytes /
					       (double)stats->sent;
		if (t->log_error)
			snprintf(row->text[0], sizeof(row->text[0]), "%.63s",
				 shmq_strerror(t->log_error));
	}
}

static void add_disks(const struct top_look *before, const struct top_look *now,
		      struct top_rows *out)
{
	size_t i, k;

	for (i = 0; i < now->disk_count; i++) {
		const struct shmq_disk_info *d = &now->disks[i];
		struct top_row *row = add_row(out, d->dir, d->device, 0);

		snprintf(row->text[0], sizeof(row->text[0]), "%u:%u", major(d->device),
			 minor(d->device));
		row->number[D_WRITTEN] = (double)d->written_bytes;
		for (k = 0; k < before->disk_count; k++)
			if (before->disks[k].device == d->device)
				row->number[D_RATE] =
					per_second(before, now,
						   (double)(d->written_bytes -
							    before->disks[k].written_bytes));
	}
}

static void add_to(double *sum, double more)
{
	if (!isnan(more))
		*sum = isnan(*sum) ? more : *sum + more;
}

static struct top_row *row_of_client(struct top_rows *rows, const struct shmq_peer_info *peer)
{
	size_t i;

	for (i = 0; i < rows->count; i++)
		if (rows->all[i].id == peer->client_id && rows->all[i].part == (uint64_t)peer->pid)
			return &rows->all[i];
	return add_row(rows, peer->client_name, peer->client_id, (uint64_t)peer->pid);
}

static void add_processes(const struct top_look *before, const struct top_look *now,
			  struct top_rows *out)
{
	size_t i;

	for (i = 0; i < now->peer_count; i++) {
		const struct top_peer *peer = &now->peers[i];
		const struct shmq_peer_info *info = &peer->info;
		struct top_row *row = row_of_client(out, info);
		int sends = info->role == SHMQ_ROLE_PUBLISHER;

		row->number[P_PID] = info->pid;
		add_to(&row->number[sends ? P_SENT : P_RECEIVED], peer_rate(before, now, peer));
		add_to(&row->number[P_ASLEEP], !!info->sleeping);
		add_to(&row->number[P_OPEN], 1);
		add_to(&row->number[P_OWN], (double)(info->arena_bytes + info->page_bytes));
		add_to(&row->number[P_MAPPED], (double)now->topics[peer->topic].info.ring_bytes);
		if (sends)
			continue;
		add_to(&row->number[P_LAG], (double)info->lag);
		add_to(&row->number[P_LOST], (double)info->lost);
		row->number[P_P99] = fmax(row->number[P_P99], or_none(info->p99_ns));
	}
}

static const char *does(const struct shmq_peer_info *peer)
{
	if (peer->role == SHMQ_ROLE_PUBLISHER)
		return peer->waiting ? "sends, waits" : "sends";
	if (peer->evicted)
		return "evicted";
	if (peer->gating)
		return peer->sleeping ? "gates, slept" : "gates";
	return peer->sleeping ? "reads, slept" : "reads";
}

static void add_handle(const struct top_look *before, const struct top_look *now,
		       const struct top_peer *peer, const char *name, uint64_t part,
		       struct top_rows *out)
{
	const struct shmq_peer_info *info = &peer->info;
	struct top_row *row = add_row(out, name, info->client_id, part);

	snprintf(row->text[0], sizeof(row->text[0]), "%s", does(info));
	row->number[H_PID] = info->pid;
	row->number[H_RATE] = peer_rate(before, now, peer);
	row->number[H_COUNT] = (double)info->count;
	row->number[H_LOST] = (double)info->lost;
	row->number[H_WAITS] = (double)info->waits;
	row->number[H_WAKES] = (double)info->wakes;
	row->number[H_P50] = or_none(info->p50_ns);
	row->number[H_P99] = or_none(info->p99_ns);
	if (info->role == SHMQ_ROLE_PUBLISHER)
		row->number[H_ARENA] = (double)info->arena_bytes;
	else
		row->number[H_LAG] = (double)info->lag;
}

static void add_peers(const struct top_look *before, const struct top_look *now,
		      const struct top_row *of, struct top_rows *out)
{
	const struct top_topic *t = topic_before(now, of->id);
	size_t i;

	for (i = 0; t && i < t->peers; i++) {
		const struct top_peer *peer = &now->peers[t->first_peer + i];

		add_handle(before, now, peer, peer->info.client_name, peer->info.opened_ns, out);
	}
}

static void add_handles(const struct top_look *before, const struct top_look *now,
			const struct top_row *of, struct top_rows *out)
{
	size_t i;

	for (i = 0; i < now->peer_count; i++) {
		const struct top_peer *peer = &now->peers[i];

		if (peer->info.client_id == of->id && (uint64_t)peer->info.pid == of->part)
			add_handle(before, now, peer, now->topics[peer->topic].info.name,
				   peer->info.opened_ns, out);
	}
}

/* ---- order ------------------------------------------------------------- */

struct by {
	const struct top_column *column;
	int is_reversed;
};

static const char *text_of(const struct top_column *column, const struct top_row *row)
{
	return column->at ? row->text[column->at - 1] : row->name;
}

/* What is not known comes last, whatever the order; of equal ones the name decides. */
static int compare(const void *left, const void *right, void *arg)
{
	const struct top_row *a = left, *b = right;
	const struct by *by = arg;
	int order;

	if (by->column->kind == TOP_TEXT) {
		order = strcmp(text_of(by->column, a), text_of(by->column, b));
	} else {
		double m = a->number[by->column->at], n = b->number[by->column->at];

		if (isnan(m) || isnan(n))
			order = isnan(m) - isnan(n);
		else
			order = by->is_reversed ? (m > n) - (m < n) : (m < n) - (m > n);
		return order ? order : strcmp(a->name, b->name);
	}
	order = by->is_reversed ? -order : order;
	return order ? order : (a->id > b->id) - (a->id < b->id);
}

static void drop_filtered(struct top_rows *rows, const char *filter)
{
	size_t i, kept = 0;

	for (i = 0; i < rows->count; i++)
		if (strstr(rows->all[i].name, filter))
			rows->all[kept++] = rows->all[i];
	rows->count = kept;
}

/* What a process has open is shown whole. */
static int is_own_hidden(const struct top_view *view, const struct top_order *order)
{
	return (view->what == TOP_TOPICS || view->what == TOP_LOGS) && !order->all &&
	       !(order->filter && strchr(order->filter, '$'));
}

static void drop_own(struct top_rows *rows)
{
	size_t i, kept = 0;

	for (i = 0; i < rows->count; i++)
		if (rows->all[i].name[0] != '$')
			rows->all[kept++] = rows->all[i];
	rows->count = kept;
}

void top_rows(const struct top_view *view, const struct top_look *before,
	      const struct top_look *now, const struct top_row *of, const struct top_order *order,
	      struct top_rows *out)
{
	struct by by = { .column = &view->columns[order->column],
			 .is_reversed = order->is_reversed };

	*out = (struct top_rows){ 0 };
	switch (view->what) {
	case TOP_TOPICS:
		add_topics(before, now, out);
		break;
	case TOP_PROCESSES:
		add_processes(before, now, out);
		break;
	case TOP_LOGS:
		add_logs(before, now, out);
		break;
	case TOP_DISKS:
		add_disks(before, now, out);
		break;
	case TOP_PEERS:
		add_peers(before, now, of, out);
		break;
	case TOP_HANDLES:
		add_handles(before, now, of, out);
		break;
	}
	if (is_own_hidden(view, order))
		drop_own(out);
	if (order->filter && order->filter[0])
		drop_filtered(out, order->filter);
	if (out->count)
		qsort_r(out->all, out->count, sizeof(*out->all), compare, &by);
}

void top_rows_clear(struct top_rows *rows)
{
	free(rows->all);
	*rows = (struct top_rows){ 0 };
}

struct units_text top_cell(const struct top_column *column, const struct top_row *row)
{
	struct units_text text = { "-" };
	double n = column->kind == TOP_TEXT ? 0 : row->number[column->at];

	if (isnan(n))
		return text;
	switch (column->kind) {
	case TOP_TEXT:
		if (text_of(column, row)[0])
			snprintf(text.s, sizeof(text.s), "%.95s", text_of(column, row));
		break;
	case TOP_COUNT:
		return units_count((uint64_t)n);
	case TOP_RATE:
		return units_rate(n);
	case TOP_BYTE_RATE:
		snprintf(text.s, sizeof(text.s), "%.60s/s", units_size((uint64_t)n).s);
		break;
	case TOP_SIZE:
		return units_size((uint64_t)n);
	case TOP_TIME:
		return units_duration((int64_t)n);
	}
	return text;
}
