/* SPDX-License-Identifier: MIT
 *
 * cli: what the files of the `shmq` command share.  Of the project they
 * include the public header only, which proves that the API is enough; metrics
 * takes the sandbox besides, which knows nothing of a bus.
 *
 *   main    commands, shared options, opening the bus
 *   value   option tables, what their values are, and units (value.h)
 *   opts    the command line by them, and help
 *   out     errors in one voice, aligned tables, JSON
 *   sig     ending in order on SIGINT, SIGTERM and SIGHUP
 *   shape   creation options that do not go together, or differ from what is
 *   topics  topics and peers of a bus, collected
 *   input   lines, frames and files for pub
 *   sender  batches, pace and accounts for pub
 *   progress  what pub is at, for a person at a terminal
 *   format  text, hex, JSON, raw and frames for sub
 *   loss    messages that are not there, told as they are missed
 *   when    places in a stream: seqs, times, ages
 *   history JSON lines and frames read back
 *
 * The commands themselves have one file each; log.h is shared by those that
 * work on logs, top.h by the parts of top, doctor.h by those of doctor.
 */
#ifndef SHMQ_CLI_H
#define SHMQ_CLI_H

#include <jansson.h>
#include <shmq.h>
#include <stdarg.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "value.h"

/* ---- exit codes ------------------------------------------------------ */

/* The one table of exit codes: `shmq --help` prints it and the tests know
 * it.  Scripts rest on these numbers: they do not change. */
#define CLI_EXITS(X) \
	X(OK, 0, "done") \
	X(FAILURE, 1, "failed") \
	X(USAGE, 2, "wrong usage, invalid name or option") \
	X(TIMEOUT, 3, "timed out") \
	X(LOST, 4, "messages were lost (sub, replay), missing (log) or dropped (pub)") \
	X(MISSING, 5, "no such topic, no supervisor, or nobody to answer") \
	X(CONFLICT, 6, "the topic exists, or it or the bus is in use") \
	X(RESOURCES, 7, "refused for resources: memory, hugepages, node, limits")

enum cli_exit {
#define CLI_X(name, value, text) CLI_##name = (value),
	CLI_EXITS(CLI_X)
#undef CLI_X
};

/* ---- the program ----------------------------------------------------- */

struct cli {
	shmq_bus *bus; /* once cli_open() returned CLI_OK */
	const char *bus_name;
	const char *runtime_dir;
	const char *client_name;
	const char *command;
	enum shmq_start_mode start;
	int help;
};

struct command {
	const char *name;
	const char *operands;                               /* for the usage line */
	const char *summary;                                /* one line */
	const char *details;                                /* paragraphs of --help */
	const char *examples;                               /* lines of a shell, or NULL */
	int (*run)(struct cli *cli, int argc, char **argv); /* returns an exit code */
};

extern const struct command cmd_create, cmd_rm, cmd_move, cmd_ls, cmd_stat, cmd_pub, cmd_sub,
	cmd_buses, cmd_clients, cmd_events, cmd_metrics, cmd_request, cmd_reply, cmd_top, cmd_trace,
	cmd_replay, cmd_log, cmd_cursor, cmd_config, cmd_reload, cmd_doctor, cmd_stop, cmd_version;

/* Attach to the bus the shared options name; says why not.  An exit code. */
int cli_open(struct cli *cli);

/* Memory that is there, or the end of the program with CLI_RESOURCES. */
void *cli_alloc(void *old, size_t bytes);
char *cli_strdup(const char *text);

/* Room for one more element of `bytes` in a growing array. */
void *cli_grow(void *array, size_t count, size_t *room, size_t bytes);

int64_t cli_now_ns(void); /* CLOCK_MONOTONIC */

/* ---- opts ------------------------------------------------------------ */

struct opt_group {
	const char *title; /* NULL leaves the group out of the help */
	const struct opt *options;
	size_t count;
	void *into;
};

extern const struct opt opts_shared[]; /* into struct cli */
extern const size_t opts_shared_count;

/* Parse argv[1..] by the groups; of two options of one name the first
 * counts.  Operands are moved to the end; returns the index of the first.
 * On errors the program ends.  In OPTS_PERMUTE mode it ends on --help, too; in
 * OPTS_STOP mode the first operand ends the options, and help is the caller's. */
enum opts_mode { OPTS_PERMUTE, OPTS_STOP };
int opts_parse(const struct command *command, enum opts_mode mode, int argc, char **argv,
	       const struct opt_group *groups, size_t count);
void opts_print_help(const struct opt_group *groups, size_t count);

/* Say what is wrong with the command line; the program ends. */
void opts_fail(const struct command *command, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));

/* ---- out ------------------------------------------------------------- */

/* shmq: DOING "WHAT": reason (hint: what to do next).  The reason is that of
 * the bus if it has one; hint NULL takes the error's usual one, unless that reason
 * says what to do.
 * Returns the exit code the error stands for. */
int out_fail(const struct cli *cli, int error, const char *doing, const char *what,
	     const char *hint);
int out_exit_code(int error);

/* To stderr.  Names that others gave, of files, of topics of their bus, tell no
 * terminal what to do. */
void out_error(const char *format, va_list ap);

/* shmq: text.  For what no error code of the library stands for. */
void out_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The fall-backs that a topic's note tells of, a line for each and for the way out of it,
 * labelled in a column so wide. */
void out_notes(const char *note, int width);
/* What each of them is, without why: for a table. */
struct units_text out_note_heads(const char *note);

/* Write out what stdout holds.  0, or -errno. */
int out_flush(void);

/* Stdout failed: give up what it still holds and say so, once.  A reader
 * that went away is no failure.  An exit code. */
int out_broken(int error);

/* Both: the exit code of the last write. */
int out_finish(void);

struct table {
	const char *const *heads; /* a leading '>' aligns to the right */
	size_t columns;
	char **cells;
	size_t count, room;
};
void table_add(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_print(const struct table *table, const char *indent);
void table_clear(struct table *table);

/* Objects grow by these; a failure to allocate ends the program. */
void json_put(json_t *object, const char *key, json_t *value);
void json_put_u64(json_t *object, const char *key, uint64_t value);
void json_put_text(json_t *object, const char *key, const char *value);
/* `key` if the bytes are UTF-8, else `key`_base64. */
void json_put_bytes(json_t *object, const char *key, const void *data, size_t len);
/* One value, one line, to stdout; consumes it. */
void json_print(json_t *value);

/* ---- sig ------------------------------------------------------------- */

/* Take SIGINT, SIGTERM and SIGHUP as a wish to end in order: waits on the bus return
 * -EINTR from then on (NULL: there are none).  SIGPIPE is an error of the write.  Until now a
 * signal just ends the program. */
void sig_catch(shmq_bus *bus);
int sig_stopped(void);     /* the signal, or 0 */
void sig_forget_bus(void); /* it is about to be closed */

/* Sleep; returns early when a signal came. */
void sig_sleep_until(int64_t monotonic_ns);

/* ---- runtime --------------------------------------------------------- */

/* The directory that buses are looked for in, by the rule of shmq_bus_open(3).  1: nobody
 * named it, so one that is another user's is not trusted, not by root either. */
int runtime_dir(const struct cli *cli, char *out, size_t bytes);

enum runtime_state {
	RUNTIME_ALIVE,
	RUNTIME_AWAITED, /* a service manager listens, and starts it */
	RUNTIME_HELD,    /* it has no supervisor, and clients that go on */
	RUNTIME_STALE,   /* nobody is there: its files were left behind */
};
typedef void runtime_visit(void *arg, const char *bus, enum runtime_state state);
/* Each bus that has files in `path`, by name.  0, or -errno. */
int runtime_each(const char *path, runtime_visit *visit, void *arg);

/* The directory, never by a path that its owner may turn into another meanwhile. */
int runtime_open(const char *path);
/* The lock, -ENOENT where there is none, or -EWOULDBLOCK. */
int runtime_lock(int dir, const char *bus, const char *suffix, int how);
int runtime_is_held(int dir, const char *bus, const char *suffix);
/* Clients that have its memory mapped give it to the next supervisor, which
 * knows it by the manifest: those are not in vain. */
int runtime_is_mapped(const char *dir, const char *bus);
int runtime_is_listened_at(const char *dir, const char *bus);

/* ---- loss ------------------------------------------------------------ */

/* Of one stream.  Each loss is told when it happens, but of a reader that loses
 * all the time not more than once a second: telling costs time, too. */
struct loss {
	const char *doing, *topic, *hint; /* shmq: DOING "TOPIC": lost ... (hint: HINT) */
	uint64_t lost, told;
	int64_t told_ns;
	int is_bound;
};
/* The hint where there is a log: who is slow goes on in it, so what is lost it lacks. */
extern const char loss_from_log[];
void loss_add(struct loss *loss, const struct shmq_msg *msg);
/* In how many ns there will be something to tell, SHMQ_FOREVER for never. */
int64_t loss_tell_when_due(struct loss *loss);
void loss_tell_rest(struct loss *loss);

/* ---- when ------------------------------------------------------------ */

enum when_kind { WHEN_NOTHING = 0, WHEN_SEQ, WHEN_TIME };

/* A place in a stream. */
struct when {
	enum when_kind kind;
	uint64_t value; /* seq, or CLOCK_REALTIME */
};

/* A seq; an ISO 8601 time, in UTC unless it names its zone; an age such as -5min.
 * 0, or -1. */
int when_parse(const char *text, struct when *out);
/* The same as the argument of an option, NULL if it was not given; on errors the
 * program ends. */
struct when when_take(const struct command *command, const char *option, const char *text);
/* 2026-11-26T07:00:00.000000000Z; "-" for 0. */
struct units_text when_text(uint64_t ns);

/* --from of those who subscribe: also latest (NULL, too) and oldest. */
void when_start(const struct command *command, const char *text, struct shmq_sub_options *how);

/* Is it the first one that is not wanted any more? */
int when_is_reached(const struct when *to, const struct shmq_msg *msg);

/* Is everything that was wanted published by now, so that nothing is waited for once
 * all that is there is read?  partition_plus1 0: the topic's only one. */
int when_is_passed(const struct when *to, shmq_bus *bus, const char *topic,
		   int32_t partition_plus1);
/* When to ask again, in ns; SHMQ_FOREVER: never. */
int64_t when_look_ns(const struct when *to);

/* ---- shape ----------------------------------------------------------- */

/* Name of an option that was given, NULL if none was. */
const char *shape_given(const struct shmq_topic_options *shape);

/* End the program if one that was given has no effect beside the others. */
void shape_check(const struct command *command, const struct shmq_topic_options *shape);

/* Say on stderr where an existing topic differs from what was asked for. */
void shape_compare(const struct shmq_topic_options *asked, const struct shmq_topic_info *is);

/* ---- topics ---------------------------------------------------------- */

struct topics {
	struct shmq_topic_info *all; /* sorted by name */
	size_t count, room;
};
/* Those whose name starts with `pattern` or, if it has wildcards, matches it;
 * NULL takes all; but those of the bus, which begin with '$', only a pattern that
 * does, too.  0 or an error of the library. */
int topics_collect(shmq_bus *bus, const char *pattern, struct topics *out);
/* Add those of the bus itself, unless a pattern says what is wanted. */
int topics_collect_own(shmq_bus *bus, const char *pattern, struct topics *topics);
void topics_clear(struct topics *topics);
int topic_is_pattern(const char *topic);
json_t *topics_json(const struct shmq_topic_info *topic);
json_t *topics_json_node(int node);

struct peers {
	struct shmq_peer_info *all; /* sorted by client */
	size_t count, room;
};
int peers_collect(shmq_bus *bus, const char *topic, struct peers *out);
void peers_clear(struct peers *peers);

struct who {
	int client; /* -1: nobody */
	pid_t pid;  /* 0: gone since */
	char name[32];
};
struct units_text who_text(const struct who *who); /* client 3, reader (pid 17) */

/* Who holds up whom in one partition. */
struct holder {
	uint32_t partition;
	struct who slowest; /* gating subscriber, the furthest behind */
	uint64_t lag;       /* its */
	int holds_back;     /* a publisher waits for it, or would */
	struct who claimer; /* publisher inside a claim that others stand at */
	uint64_t claim_seq;
	int log_error; /* of holder_find(): why a log that is waited for stands, or 0 */
};
void holder_of(const struct peers *peers, const struct shmq_partition_info *partition,
	       struct holder *out);
/* Of the partition where it is worst: others stand at a claim, else publishers
 * wait, else a subscriber is furthest behind. */
int holder_find(shmq_bus *bus, const struct shmq_topic_info *topic, struct holder *out);
/* Whether a subscriber is there that publishers may come to wait for, behind or not. */
int holder_has_lag(const struct shmq_topic_info *topic, const struct holder *holder);
struct units_text holder_text(const struct holder *holder); /* who holds up others, "-" nobody */

/* ---- input ----------------------------------------------------------- */

enum input_shape {
	INPUT_LINES = 0,
	INPUT_FRAMES,
	INPUT_FILES,
	INPUT_OPERANDS, /* which need not be read */
};

struct input {
	int fd;
	enum input_shape shape;
	size_t limit; /* a longer record is refused before it is read */
	char *buf;
	size_t start, scanned, end, room;
	uint64_t number; /* of the record handed out last, from 1 */
};

enum input_status {
	INPUT_RECORD, /* *data and *len are set, valid until input_fill() */
	INPUT_NEEDS_MORE,
	INPUT_TOO_LONG,
	INPUT_CUT, /* the end came inside a frame */
};
/* Next record that is there already. */
enum input_status input_next(struct input *input, const char **data, size_t *len);
/* Read more.  Bytes read, 0 at the end, or -errno; -EINTR after a signal. */
ssize_t input_fill(struct input *input);
/* What stands behind the last separator once the end is reached; NEEDS_MORE
 * if nothing does. */
enum input_status input_rest(struct input *input, const char **data, size_t *len);
void input_clear(struct input *input);

/* ---- history --------------------------------------------------------- */

/* Lines of JSON as format_write() makes them, read back.  Messages point into what
 * is kept of them until it is released. */
struct history {
	struct history_kept {
		json_t *object;
		char *bytes;
	} * kept;
	size_t count, room;
	char why[256];
};
/* 0, or -1 with why.  lost and partition are as the line says, SHMQ_ANY_PARTITION if
 * it says none. */
int history_parse(struct history *h, const char *line, size_t len, struct shmq_msg *msg);
void history_release(struct history *h);
void history_clear(struct history *h);

/* ---- sender ---------------------------------------------------------- */

enum doing { DOING_NOTHING, DOING_READ, DOING_PUBLISH, DOING_WAIT_SUBSCRIBERS, DOING_CONFIRM };

struct progress {
	int is_on;
	_Atomic int doing;        /* enum doing */
	_Atomic uint64_t bytes;   /* of the message it is at */
	_Atomic uint64_t changes; /* so that what lasts is known */
	pthread_t thread;
	pthread_mutex_t lock; /* of the rest, and of the line on the terminal */
	pthread_cond_t stop;
	int is_stopped;
	int64_t due_ns; /* when it is shown next */
};

struct sender {
	struct cli *cli;
	const char *topic;
	shmq_pub *pub;
	struct shmq_msg *batch; /* views; batch_max of them */
	size_t pending, batch_max;
	double rate; /* messages per second, 0: as fast as it goes */
	_Atomic uint64_t sent, dropped, bytes;
	_Atomic int64_t started_ns;
	int64_t paced_ns; /* when message number paced was due */
	uint64_t paced;
	struct progress progress;
};
void sender_start(struct sender *sender);
/* These return an exit code, having said what went wrong. */
int sender_add(struct sender *sender, const struct shmq_msg *msg);
int sender_flush(struct sender *sender); /* send what is pending */
/* Wait until all that is published, by anybody, is so far in the topic's log. */
int sender_confirm(struct sender *sender, enum shmq_confirm level, int64_t timeout_ns);
int sender_fail(struct sender *sender, int error, const char *doing);
double sender_rate(const struct sender *sender);
/* Say what was sent, as asked for, and what was dropped; the exit code, of which
 * `code` is what it would be without that. */
struct sender_report {
	int verbose, json;
};
int sender_conclude(struct sender *sender, const struct sender_report *report, int code);

/* ---- progress -------------------------------------------------------- */

/* A thread shows a line five times a second, as the library's calls may take
 * long.  Once it is started, hide it before anything else is written. */
void progress_start(struct sender *sender);
void progress_set(struct sender *sender, enum doing doing, uint64_t bytes);
void progress_hide(struct sender *sender); /* for a moment */
void progress_stop(struct sender *sender);

/* ---- format ---------------------------------------------------------- */

enum format { FORMAT_TEXT = 0, FORMAT_HEX, FORMAT_JSON, FORMAT_RAW, FORMAT_FRAMES };
extern const struct opt_word format_words[];

#define FORMAT_KEY 1u   /* text and hex: KEY and a tab before the payload */
#define FORMAT_TOPIC 2u /* ... TOPIC and a tab before that */

struct format_message {
	const char *topic;
	const struct shmq_msg *msg;
	uint64_t lost;  /* between this and the message before */
	int is_bound;   /* ... or fewer */
	uint32_t has;   /* SHMQ_TOPIC_*: what the topic stamps */
	unsigned flags; /* FORMAT_* */
};
/* Write one message to stdout.  0, or -errno. */
int format_write(enum format format, const struct format_message *message);

#endif
