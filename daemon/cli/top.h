/* SPDX-License-Identifier: MIT
 *
 * top: looks at a bus, made into rows of numbers that are sorted, filtered and
 * shown.
 *
 *   top         options, and reports for scripts
 *   top_look    one look: all topics, partitions and peers
 *   top_rows    rows of each view, from a look and the one before
 *   top_screen  the terminal
 */
#ifndef SHMQ_CLI_TOP_H
#define SHMQ_CLI_TOP_H

#include "cli.h"

/* ---- top_look -------------------------------------------------------- */

/* Sums over the partitions of a topic. */
struct top_topic {
	struct shmq_topic_info info;
	struct holder holder;  /* where it is worst */
	uint64_t log_behind;   /* messages that are not in the log's files yet */
	uint64_t log_unsynced; /* ... that are, and not yet on the disk */
	uint64_t log_written;  /* seqs before which all is in the files */
	int log_error;
	size_t first_peer, peers; /* of look.peers */
};

struct top_peer {
	struct shmq_peer_info info;
	size_t topic; /* of look.topics */
};

struct top_look {
	int64_t at_ns; /* 0: there was no look */
	struct shmq_bus_info bus;
	struct top_topic *topics; /* sorted by id */
	size_t topic_count, topic_room;
	struct top_peer *peers; /* by topic */
	size_t peer_count, peer_room;
	struct shmq_disk_info *disks;
	size_t disk_count, disk_room;
};

/* What became of the bus since it was opened: a supervisor serves it, is away, or serves
 * another one of that name, which cli has now; or the error, of one that was stopped,
 * for which there is none. */
enum { TOP_SERVED, TOP_AWAY, TOP_OTHER };
int top_find_bus(struct cli *cli);

/* 0 or an error of the library. */
int top_look(shmq_bus *bus, struct top_look *out);
void top_look_clear(struct top_look *look);

/* ---- top_rows -------------------------------------------------------- */

enum top_kind { TOP_TEXT, TOP_COUNT, TOP_RATE, TOP_BYTE_RATE, TOP_SIZE, TOP_TIME };

struct top_column {
	const char *head, *json;
	int width;
	enum top_kind kind;
	unsigned at; /* which of a row's texts or numbers */
};

#define TOP_TEXTS 2u
#define TOP_NUMBERS 12u
struct top_row {
	uint64_t id, part;            /* together they tell rows apart, also later */
	char name[SHMQ_NAME_MAX + 1]; /* what is filtered by */
	char text[TOP_TEXTS][64];     /* "": none */
	double number[TOP_NUMBERS];   /* NAN: not known, or none */
};

struct top_rows {
	struct top_row *all;
	size_t count, room;
};

enum top_what { TOP_TOPICS, TOP_PROCESSES, TOP_LOGS, TOP_DISKS, TOP_PEERS, TOP_HANDLES };
struct top_view {
	const char *name; /* of --view; NULL: it is come to from another */
	enum top_what what;
	const struct top_column *columns; /* the first is the name */
	size_t count;
	unsigned sorted_by;          /* column, at first */
	const struct top_view *into; /* what a row is looked into with */
};
extern const struct top_view top_views[]; /* ended by one without columns */

struct top_order {
	unsigned column;
	int is_reversed;    /* smallest first; of text: last first */
	const char *filter; /* only rows whose name has it; NULL all */
	int all;            /* also topics of the bus itself; or by a filter that has a '$' */
};

/* The rows of a view; of those that are come to, of the row `of` of the other.
 * Rates are those since `before`, which may be empty. */
void top_rows(const struct top_view *view, const struct top_look *before,
	      const struct top_look *now, const struct top_row *of, const struct top_order *order,
	      struct top_rows *out);
void top_rows_clear(struct top_rows *rows);

struct units_text top_cell(const struct top_column *column, const struct top_row *row);

/* ---- top_screen ------------------------------------------------------ */

struct top {
	struct cli *cli;
	int64_t interval_ns;
	uint64_t count; /* of reports, 0: without end */
	const struct top_view *view;
	struct top_order order;
	int once, json;
};

/* Until it is left.  An exit code. */
int top_screen(struct top *top);

#endif
