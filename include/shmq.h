/* SPDX-License-Identifier: MIT
 *
 * shmq: a shared-memory message bus for the processes of one Linux box.
 *
 * A bus is one supervisor (shmqd) and everything it owns.  A topic is a
 * named stream of messages on it, made of one or more partitions; each
 * partition is one ring in shared memory with its own 64-bit sequence.
 * A publisher appends to a topic, a subscriber reads every message from
 * the position it starts at.  The supervisor creates and repairs; it is
 * never between a publisher and a subscriber.
 *
 * Caveats
 *   fork     A handle belongs to the process that opened it.  In a child
 *            every call refuses with SHMQ_EFORKED; open a bus anew there.
 *   signals  No call but shmq_bus_interrupt() may be made from a signal handler
 *            that interrupted a call on the same handle or bus.  Nothing else about
 *            a publish is unsafe: no lock is held at any instruction, and
 *            it takes nothing from malloc; a receive sometimes does.
 *   SIGKILL  May hit any process anywhere.  Whatever was committed stays
 *            readable, whatever was not is never seen.
 *   threads  bus: any thread at any time.  publisher, subscriber, wait
 *            set: one thread at a time, any thread; different handles in
 *            parallel without restriction.
 *
 * Conventions
 *   Every function returns 0 or a count on success and a negative error:
 *   -errno, or one of SHMQ_E* below -4096.  errno is not a channel.
 *   Times are nanoseconds.  A timeout of SHMQ_NOWAIT (0) never waits,
 *   SHMQ_FOREVER (-1) waits without end.
 *   Option structs start with their size; zero in any field means the
 *   default, a NULL pointer means all defaults.
 */
#ifndef SHMQ_H
#define SHMQ_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHMQ_VERSION_MAJOR 0
#define SHMQ_VERSION_MINOR 1
#define SHMQ_VERSION_PATCH 0

#define SHMQ_NOWAIT ((int64_t)0)
#define SHMQ_FOREVER ((int64_t)-1)

#define SHMQ_NAME_MAX 255       /* bytes of a topic name, without the NUL */
#define SHMQ_BUS_NAME_MAX 63    /* bytes of a bus name, without the NUL */
#define SHMQ_ERROR_TEXT_MAX 512 /* bytes of shmq_bus_error(), with the NUL */

/* ---- errors ---------------------------------------------------------- */

/* One list makes the enum, the texts of shmq_strerror() and its test. */
#define SHMQ_ERRORS(X) \
	X(EFULL, -5001, "topic is full and a subscriber that gates it has not read on") \
	X(EEMPTY, -5002, "no message is there yet") \
	X(ETIMEOUT, -5003, "timed out") \
	X(EOVERRUN, -5004, "the subscriber was overrun: messages were lost and counted") \
	X(EEVICTED, -5005, "the subscriber was evicted because it held publishers back") \
	X(EENDED, -5006, "the stream has ended") \
	X(EMOVED, -5007, "the topic was moved to a fresh ring: open it again") \
	X(ESTALLED, -5008, "a live publisher stalled inside its claim holds this slot") \
	X(EPEERDEAD, -5009, "the peer process is dead") \
	X(EVERSION, -5010, "layout or protocol version mismatch") \
	X(EFORKED, -5011, "handle belongs to the parent process: open a bus after fork") \
	X(EBUSNAME, -5012, "invalid bus name") \
	X(ENAME, -5013, "invalid topic name") \
	X(EOPTION, -5014, "invalid option") \
	X(ENOTOPIC, -5015, "no such topic") \
	X(EEXISTS, -5016, "topic exists already") \
	X(EINUSE, -5017, "still in use") \
	X(EEXCLUSIVE, -5018, "topic is exclusive and has a publisher already") \
	X(ETOOBIG, -5019, "message is larger than the topic's maximum") \
	X(EBUFFER, -5020, "the buffer is smaller than the message") \
	X(ENODAEMON, -5021, "no supervisor is running on this bus") \
	X(EDAEMON, -5022, "the supervisor did not answer") \
	X(EPROTO, -5023, "malformed control message") \
	X(ECORRUPT, -5024, "shared memory or a log holds an impossible value") \
	X(ENOMEMORY, -5025, "not enough memory") \
	X(ENOHUGE, -5026, "not enough free hugepages") \
	X(ENONODE, -5027, "no such NUMA node") \
	X(EMEMLOCK, -5028, "the memlock limit is too low") \
	X(ELIMIT, -5029, "a limit of this system is reached") \
	X(EACCESS, -5030, "access denied") \
	X(EBATCH, -5031, "batch is larger than a quarter of the ring") \
	X(ELOST, -5032, "the supervisor was restarted and this object could not be recovered") \
	X(ECLAIM, -5033, "the claim is not open") \
	X(ENOBODY, -5034, "nobody is there to answer") \
	X(EREFUSED, -5035, "the request was refused")

enum shmq_error {
#define SHMQ_X(name, value, text) SHMQ_##name = value,
	SHMQ_ERRORS(SHMQ_X)
#undef SHMQ_X
};

/* Text for any value this library returns; also takes plain -errno.
 * Never NULL; the string is static.  Any thread. */
const char *shmq_strerror(int error);

/* The symbolic name, "SHMQ_EFULL" or "ENOENT"; "OK" for 0 and above. */
const char *shmq_errname(int error);

/* Version of the library in use, "0.1.0". */
const char *shmq_version(void);

/* ---- bus ------------------------------------------------------------- */

typedef struct shmq_bus shmq_bus;
typedef struct shmq_pub shmq_pub;
typedef struct shmq_sub shmq_sub;
typedef struct shmq_waitset shmq_waitset;

enum shmq_start_mode {
	SHMQ_START_NEVER = 0, /* fail with SHMQ_ENODAEMON if none runs */
	SHMQ_START_ON_DEMAND, /* start shmqd if none runs; it exits when its
				 bus is empty */
};

enum shmq_serve_mode {
	SHMQ_SERVE_THREAD = 0, /* a thread of the library's reads the control
				  socket, re-attaches, makes deferred wakes */
	SHMQ_SERVE_CALLER,     /* the caller does, by shmq_bus_serve() */
};

struct shmq_bus_options {
	size_t size;
	enum shmq_start_mode start;
	enum shmq_serve_mode serve;
	const char *runtime_dir; /* directory of the bus's socket; default
				    $SHMQ_RUNTIME_DIR, $XDG_RUNTIME_DIR/shmq,
				    else /tmp/shmq-<uid> */
	const char *daemon_path; /* shmqd to start; default $SHMQ_DAEMON, else
				    the one beside this library or on PATH */
	int64_t timeout_ns;      /* for each call that needs the supervisor;
				    default 10 s */
	const char *client_name; /* shown by stat; default the process's comm */
	int interruptible;       /* 1: shmq_bus_interrupt() can end waits; falling asleep
				    then waits on one futex word more */
};

/* Attach to bus `name` (NULL means "default": letters, digits, '_', '-', at
 * most SHMQ_BUS_NAME_MAX bytes).  *out is owned by the caller until
 * shmq_bus_close(), which also closes every handle opened on it.
 * Blocks for at most timeout_ns.  The first handle on a topic that permits
 * sleeping registers the process for membarrier(2), which takes microseconds
 * while it is single-threaded and milliseconds once it is not.
 * Errors: SHMQ_EBUSNAME, SHMQ_EOPTION, SHMQ_ENODAEMON, SHMQ_EDAEMON,
 * SHMQ_EVERSION, SHMQ_EACCESS, SHMQ_ELIMIT, -ENOMEM, -EMFILE. */
int shmq_bus_open(const char *name, const struct shmq_bus_options *options, shmq_bus **out);

/* Close every handle of `bus`, leave the bus.  NULL is allowed.  No other
 * thread may be inside a call on the bus or its handles. */
void shmq_bus_close(shmq_bus *bus);

/* What the last failed open, create, remove, stop or inspection call of this
 * thread was refused for, in one line that names the thing and the way out;
 * "" if there is nothing to add to shmq_strerror().  The line belongs to the
 * thread: bus may be NULL, as after a failed shmq_bus_open().  Valid until
 * this thread's next such call; publish and receive leave it alone. */
const char *shmq_bus_error(const shmq_bus *bus);

/* End all waits on the bus: calls on its handles that wait, and those to come, return
 * -EINTR instead, once there is nothing to hand out or no room; what does not wait
 * works as before.  What was begun is left as on a timeout: nothing is published or
 * lost by it.  Calls that only talk to the supervisor end by timeout_ns as ever, but for
 * those that close, which wait a second for it; listeners go on.  Until shmq_bus_resume().
 *
 * For a thread that is to end and waits with SHMQ_FOREVER, and for handlers of signals:
 * safe there, also where the signal interrupted a call on the bus, as long as the bus is
 * open.  Any thread, never blocks; no signal is needed to have the others hear of it.  Who
 * sleeps in shmq_pub_wait_confirm() hears of it within 0.1 s, and so does whoever sleeps
 * where there is no futex_waitv (before Linux 5.16, or where a filter denies it).  Whose
 * wait has not ended when it is taken back may not have heard of it.
 * SHMQ_EOPTION: the bus was not opened with `interruptible`; SHMQ_EFORKED. */
int shmq_bus_interrupt(shmq_bus *bus);
int shmq_bus_resume(shmq_bus *bus);

/* Name, and the client id by which peers and stat know this process. */
const char *shmq_bus_name(const shmq_bus *bus);
unsigned shmq_bus_client_id(const shmq_bus *bus);

/* SHMQ_SERVE_CALLER: a descriptor that polls readable when shmq_bus_serve()
 * has work.  serve handles what is there, waiting at most timeout_ns; returns
 * the number of things handled.  Any one thread. */
int shmq_bus_fd(const shmq_bus *bus);
int shmq_bus_serve(shmq_bus *bus, int64_t timeout_ns);

/* Number of times this client had to re-attach to a restarted supervisor,
 * and whether it is attached now (1) or carrying on alone (0). */
int shmq_bus_reattach_count(const shmq_bus *bus);
int shmq_bus_is_attached(const shmq_bus *bus);

/* Ask the supervisor to stop.  It ends all topics by name first (SHMQ_FORCE)
 * or refuses with SHMQ_EINUSE while other clients are attached. */
#define SHMQ_FORCE 1u
int shmq_bus_stop(shmq_bus *bus, unsigned flags);

/* Have the supervisor take its configuration anew, shmqd.conf(5): all of it, or
 * nothing if there is a mistake in it.  Returns how many settings changed; in
 * changes (bytes long, may be NULL) a line for each, cut short with "..." where
 * more would follow.  Blocks for one round trip.  Errors: SHMQ_EOPTION (the first
 * mistake with file, line and column), SHMQ_EACCESS, SHMQ_EDAEMON,
 * SHMQ_ENODAEMON. */
int shmq_bus_reload(shmq_bus *bus, char *changes, size_t bytes);

/* Events: what became of the peers on topics that this client has open. */
enum shmq_event_kind {
	SHMQ_EVENT_JOINED = 1, /* a publisher or subscriber opened the topic */
	SHMQ_EVENT_LEFT,       /* ... closed its handle */
	SHMQ_EVENT_DIED,       /* ... its process died; already recovered */
	SHMQ_EVENT_ENDED,      /* the topic was removed, or moved */
	SHMQ_EVENT_EVICTED,    /* a subscriber was evicted */
	SHMQ_EVENT_STALLED,    /* a publisher is stalled inside its claim */
	SHMQ_EVENT_DETACHED,   /* the supervisor went away (topic is "") */
	SHMQ_EVENT_REATTACHED, /* ... and is back (topic is "") */
};
/* What happens on a bus, as messages of a topic that the supervisor publishes: the
 * message is an object of JSON with at least "event", "type" and "text", its type the
 * number here, which does not change, its time that of the event.  Who may subscribe
 * to it is the matter of access rules.  It makes nobody wait, and who reads too slowly
 * loses messages and is told; it is made when somebody subscribes for the first time,
 * to begin with the last 64 events before that. */
#define SHMQ_EVENTS_TOPIC "$sys.events"
#define SHMQ_SYS_EVENTS(X) \
	X(ATTACH, 1, "attach")     /* a client joined the bus, or is back */ \
	X(DETACH, 2, "detach")     /* ... left in order */ \
	X(DEATH, 3, "death")       /* ... died, or a process of the bus itself */ \
	X(RECOVERY, 4, "recovery") /* what the dead left is repaired */ \
	X(EVICTION, 5, "eviction") /* a subscriber held publishers back */ \
	X(FALLBACK, 6, "fallback") /* a topic has other pages, node or lock than asked for */ \
	X(STALL, 7, "stall")       /* a publisher stands inside its claim */ \
	X(DISK, 8, "disk")       /* a log's disk is nearly full, or the log stands; or no more */ \
	X(REFUSAL, 9, "refusal") /* a request was refused for a limit or for resources */
enum shmq_sys_event {
#define SHMQ_SYS_X(name, number, word) SHMQ_SYS_##name = (number),
	SHMQ_SYS_EVENTS(SHMQ_SYS_X)
#undef SHMQ_SYS_X
};

enum shmq_role { SHMQ_ROLE_PUBLISHER = 1, SHMQ_ROLE_SUBSCRIBER };

struct shmq_event {
	enum shmq_event_kind kind;
	enum shmq_role role;
	char topic[SHMQ_NAME_MAX + 1];
	unsigned client_id;
	pid_t pid;
	uint64_t missed; /* events dropped before this one: 1024 were waiting to
			    be read, or the socket was full */
};

/* Next event, waiting at most timeout_ns: 0, SHMQ_EEMPTY (no wait) or
 * SHMQ_ETIMEOUT.  Any thread; each event goes to one caller.  With
 * SHMQ_SERVE_CALLER it serves while it waits: the thread that serves. */
int shmq_bus_event(shmq_bus *bus, struct shmq_event *event, int64_t timeout_ns);

/* ---- topics ---------------------------------------------------------- */

enum shmq_mode {
	SHMQ_EXCLUSIVE = 1, /* one publisher at a time; the fastest */
	SHMQ_SHARED,        /* any number of publishers */
};

enum shmq_policy {
	SHMQ_BLOCK = 1, /* publishers wait for the slowest subscriber.  With no
			   subscriber nobody waits and old messages go */
	SHMQ_DROP_NEW,  /* publish returns SHMQ_EFULL instead of waiting */
	SHMQ_LOSSY,     /* publishers never wait; a slow subscriber loses the
			   oldest messages and is told how many */
	SHMQ_EVICT,     /* publishers wait evict_ns for a subscriber, then go on
			   without it; it gets SHMQ_EEVICTED */
};

enum shmq_stall {
	SHMQ_STALL_KILL = 1, /* a publisher proved to be stalled inside its claim
				is killed and its claim voided (shared topics) */
	SHMQ_STALL_REPORT,   /* others get SHMQ_ESTALLED until it moves */
};

enum shmq_wait {
	SHMQ_WAIT_ADAPTIVE = 1, /* spin a little, yielding, then sleep (default) */
	SHMQ_WAIT_SPIN,         /* never enter the kernel */
	SHMQ_WAIT_YIELD,        /* sched_yield() between looks */
	SHMQ_WAIT_SLEEP,        /* sleep at once */
};

enum shmq_pages {
	SHMQ_PAGES_AUTO = 1, /* hugepages if the ring fills one and enough are
				free, else 4 KiB */
	SHMQ_PAGES_4K,
	SHMQ_PAGES_2M, /* refuse if not available */
	SHMQ_PAGES_1G,
};

enum shmq_lock { SHMQ_LOCK_AUTO = 1, SHMQ_LOCK_NEVER, SHMQ_LOCK_ALWAYS };

/* What of a topic is kept on disk, by the supervisor's tailer: shmq_log(5). */
enum shmq_log {
	SHMQ_LOG_NONE = 1, /* nothing (default) */
	SHMQ_LOG_BLOCK,    /* all: publishers wait for the tailer as for a subscriber
			      that gates them */
	SHMQ_LOG_GAP,      /* publishers never wait for it; what it could not keep
			      up with is a gap, of which the log tells */
};

/* When what was written to the log is synced, so that it survives the machine. */
enum shmq_sync {
	SHMQ_SYNC_NONE = 1, /* when the kernel likes */
	SHMQ_SYNC_INTERVAL, /* every sync_ns (default: 1 s) */
	SHMQ_SYNC_BATCH,    /* after each megabyte, or sync_ns (5 ms) after the first
			       message that is not synced */
	SHMQ_SYNC_EVERY,    /* at once; what comes meanwhile is synced together */
};

#define SHMQ_NODE_ANY 0        /* where the kernel likes: near the supervisor, if it can */
#define SHMQ_NODE(n) ((n) + 1) /* NUMA node n */
/* The node on which the first publisher runs when it opens the topic: pages
 * are moved there then, if they can be; else the topic's note says why not. */
#define SHMQ_NODE_PUBLISHER (-1)
#define SHMQ_TOPIC_TAG 1u  /* slots carry a 64-bit tag (8 bytes) and a */
#define SHMQ_TOPIC_TIME 2u /* timestamp (8 bytes); either takes 16 */
/* Nobody may sleep on it: publishers are then never interrupted by a
 * sleeper's fence. */
#define SHMQ_TOPIC_SPIN_ONLY 4u
/* Of its log no segment is removed that a stored cursor still needs, whatever
 * retain_bytes and retain_ns say, of which it takes one; with a retain_bytes of 1
 * nothing else is kept.  A cursor that nobody moves or removes keeps all behind it. */
#define SHMQ_TOPIC_RETAIN_CURSORS 8u
/* Of its log the last message of each key is kept, and what it supersedes is removed
 * by and by, from segments that are complete: shmq_log(5).  A message with a key and
 * nothing else deletes the key, and is itself removed tombstone_ns later.  Messages
 * without a key are kept, as far as the other options say so. */
#define SHMQ_TOPIC_RETAIN_KEYS 16u

struct shmq_topic_options {
	size_t size;
	uint64_t depth;             /* slots per partition; power of two, 1024 to
				       2^32; default 8192; rounded up */
	uint32_t slot_bytes;        /* 64 to 4096, in whole 64; default 128 */
	uint32_t partitions;        /* 1 to 4096; default 1 */
	uint64_t max_message_bytes; /* largest payload, key and properties
				   included; up to 1 GiB; default what fits
				   inline.  Beyond inline, payloads go
				   through the publisher's arena */
	enum shmq_mode mode;        /* default SHMQ_EXCLUSIVE */
	enum shmq_policy policy;    /* default SHMQ_BLOCK */
	enum shmq_stall stall;      /* default SHMQ_STALL_KILL; SHMQ_STALL_REPORT where
				       rules let others than the owner publish, for
				       whom only the owner can choose otherwise */
	enum shmq_wait wait;        /* hint, taken by handles that choose none */
	enum shmq_pages pages;      /* default SHMQ_PAGES_AUTO */
	enum shmq_lock lock;        /* default SHMQ_LOCK_AUTO: when it fits */
	int node;                   /* SHMQ_NODE_* */
	unsigned flags;             /* SHMQ_TOPIC_* */
	int64_t evict_ns;           /* SHMQ_EVICT: patience; default 100 ms */
	int64_t block_timeout_ns;   /* SHMQ_BLOCK: how long a publish waits;
				       default SHMQ_FOREVER */
	enum shmq_log log;          /* default SHMQ_LOG_NONE.  A lossy topic cannot
				       have SHMQ_LOG_BLOCK */
	enum shmq_sync sync;        /* default SHMQ_SYNC_INTERVAL */
	int64_t sync_ns;            /* see enum shmq_sync */
	uint64_t segment_bytes;     /* of a log's files, 1 MiB to 1 TiB; default 1 GiB */
	uint64_t retain_bytes;      /* of a partition's log: older segments are removed;
				       default all are kept */
	int64_t retain_ns;          /* likewise what is older than that */
	int64_t tombstone_ns;       /* see SHMQ_TOPIC_RETAIN_KEYS; default one day */
	int compress;               /* level of zstd, 1 to 19, for segments that are
				       complete; default 0: they are not compressed */
	const char *log_dir;        /* below which the log is to be, one of those that
				       shmqd was given (--log-dirs), so on another
				       device, whose writes wait for no other's; NULL:
				       where those are that do not say */
};

/* What a creation takes, before it happens. */
struct shmq_plan {
	uint64_t ring_bytes;      /* all rings of the topic, whole pages */
	uint64_t control_bytes;   /* bells, records, roster */
	uint64_t growth_bytes;    /* what the bus's shared memory grows by for it:
				     control data and small rings come from pools
				     that grow by chunks, others take ring_bytes */
	uint64_t arena_bytes;     /* what each publisher's arena will take by
				     default; 0 if all payloads are inline */
	uint64_t depth;           /* after rounding */
	uint32_t inline_bytes;    /* payload that fits a slot */
	uint64_t page_bytes;      /* page size the rings will have */
	int node;                 /* as asked */
	uint64_t available_bytes; /* what the source has free now */
	char source[128];         /* where it comes from, for people */
	char note[256];           /* fall-backs, each with what fixes it; or "" */
};

/* Validate a topic name: words of [A-Za-z0-9_-] (a first '$' is reserved for
 * the bus) separated by single dots, at most SHMQ_NAME_MAX bytes.
 * 0 or SHMQ_ENAME. */
int shmq_topic_check_name(const char *name);

/* 1 if a topic of that name is meant by the pattern, 0 if not, SHMQ_ENAME for what
 * is no pattern.  Words are separated by single dots, as in names; "*" stands for
 * exactly one word and "#" for any number of words, none included.  Names that begin
 * with '$' are meant only by patterns that do.  A name means itself. */
int shmq_topic_matches(const char *pattern, const char *name);

/* Say what shmq_topic_create() with these options would take; the same
 * checks, no effect.  Blocks for one round trip. */
int shmq_topic_plan(shmq_bus *bus, const char *name, const struct shmq_topic_options *options,
		    struct shmq_plan *out);

/* Create a topic; plan may be NULL.  On failure nothing has changed and
 * shmq_bus_error() names the limit.  Errors: SHMQ_ENAME, SHMQ_EOPTION,
 * SHMQ_EEXISTS, SHMQ_ENOMEMORY, SHMQ_ENOHUGE, SHMQ_ENONODE, SHMQ_EMEMLOCK,
 * SHMQ_ELIMIT, SHMQ_EDAEMON, SHMQ_ENODAEMON. */
int shmq_topic_create(shmq_bus *bus, const char *name, const struct shmq_topic_options *options,
		      struct shmq_plan *plan);

/* Remove a topic.  SHMQ_EINUSE while anyone has it open, unless SHMQ_FORCE:
 * then their handles return SHMQ_EENDED, and memory goes with the last. */
int shmq_topic_remove(shmq_bus *bus, const char *name, unsigned flags);

/* Move a topic to fresh rings of the same shape: the way out where a process
 * that cannot be killed (frozen by its cgroup) stands inside a claim, and
 * others cannot pass it.  The name leads to the new rings, which begin in
 * each partition with the seq after the last one that was taken in the old.
 * Handles on the old ones return SHMQ_EMOVED: publishers at their next call
 * or the one they are in, and that message is not in the new rings, though
 * who reads the old ones may get it; subscribers once the new rings are there and
 * they have read the old ones, where a claim that stays open for a second is passed.
 * Open again, subscribers with SHMQ_FROM_SEQ and the seq that SHMQ_EMOVED came with:
 * there the new ring begins.  A worker that dies midway may leave the old rings in
 * place: then publishers alone were told, and find those when they open again.  The
 * old memory goes with its last handle.  Nothing needs to be stalled for it.  Any
 * client may ask; blocks while memory is populated.  On failure nothing else has
 * changed.  Errors: SHMQ_ENAME, SHMQ_ENOTOPIC, SHMQ_ENOMEMORY,
 * SHMQ_ENOHUGE, SHMQ_ENONODE, SHMQ_EMEMLOCK, SHMQ_ELIMIT, SHMQ_EDAEMON, SHMQ_ENODAEMON. */
int shmq_topic_move(shmq_bus *bus, const char *name);

/* ---- messages -------------------------------------------------------- */

#define SHMQ_MSG_BATCH 1u /* member of an atomic batch */
#define SHMQ_MSG_ARENA 2u /* payload lives in an arena, not in the slot */
#define SHMQ_MSG_META 4u  /* carries key and properties */

#define SHMQ_ANY_PARTITION (-1)

/* A message: what to publish (fields marked p) or what was received (r).
 * Initialise with = {0}; partition 0 then means the first one for topics of
 * one partition, and "choose" needs SHMQ_ANY_PARTITION. */
struct shmq_msg {
	const void *data;       /* p r: payload; on receive valid as a view */
	size_t len;             /* p r: bytes of it */
	const void *key;        /* p r: key, or NULL; with SHMQ_ANY_PARTITION */
	size_t key_len;         /*      it chooses the partition; <= 65535 */
	const void *properties; /* p r: application's headers, or NULL */
	size_t properties_len;  /*      <= 65535 */
	uint64_t seq;           /* p r: number in its partition; set by publish */
	uint64_t ts_ns;         /* p r: CLOCK_REALTIME of publish, if the topic
				   stamps time; 0 on publish means now */
	uint64_t tag;           /* p r: if the topic carries tags; 0 on publish
				   means the hash of the key */
	uint64_t lost;          /* r: with SHMQ_EOVERRUN and SHMQ_EEVICTED, how
				   many messages were lost here */
	int32_t partition;      /* p r */
	uint16_t type;          /* p r: the application's own */
	uint16_t flags;         /* r: SHMQ_MSG_* */
	uint32_t lost_is_bound; /* r: 1 if `lost` is an upper bound: more holes
				   were made than the ring remembers, or what
				   is missing from a log is not known */
};

/* ---- publishing ------------------------------------------------------ */

enum shmq_wake {
	SHMQ_WAKE_DIRECT = 1, /* publish wakes sleepers itself (default) */
	SHMQ_WAKE_DEFERRED,   /* the library's thread does, about wake_ns late, and
				 looks that often while the handle is open:
				 publish never enters the kernel for it */
};

struct shmq_pub_options {
	size_t size;
	enum shmq_wake wake;
	int64_t wake_ns;          /* deferred: default 50 us */
	uint64_t arena_bytes;     /* default: shmq_plan.arena_bytes */
	int64_t block_timeout_ns; /* overrides the topic's; SHMQ_NOWAIT cannot be
				     asked for here: use SHMQ_DONTWAIT */
	enum shmq_wait wait;      /* how to wait for credit */
	unsigned flags;           /* SHMQ_DONTWAIT: as if every timeout were 0 */
};
#define SHMQ_DONTWAIT 1u

/* Open `topic` for publishing.  Errors: SHMQ_ENOTOPIC, SHMQ_EEXCLUSIVE,
 * SHMQ_EOPTION, SHMQ_ENOMEMORY (arena), SHMQ_ELIMIT, SHMQ_EDAEMON. */
int shmq_pub_open(shmq_bus *bus, const char *topic, const struct shmq_pub_options *options,
		  shmq_pub **out);
void shmq_pub_close(shmq_pub *pub); /* NULL allowed */

/* Publish `len` bytes; round-robin over partitions.  The bytes are copied
 * before it returns.  Blocks only where the topic's policy says so.
 * When it returns 0 the message is visible to every subscriber and outlives
 * this process.  Order: a subscriber sees one publisher's messages of one
 * partition in the order published.  Errors: SHMQ_ETOOBIG, SHMQ_EFULL,
 * SHMQ_ETIMEOUT, SHMQ_EENDED, SHMQ_EMOVED, SHMQ_ESTALLED, SHMQ_EFORKED. */
int shmq_publish(shmq_pub *pub, const void *data, size_t len);

/* The same with everything: key, tag, type, partition; sets msg->seq,
 * msg->partition and msg->ts_ns.  With iov, the payload is gathered from the
 * vector and msg->data and len are ignored. */
int shmq_publish_msg(shmq_pub *pub, struct shmq_msg *msg);
int shmq_publish_iov(shmq_pub *pub, struct shmq_msg *msg, const struct iovec *iov, int iov_count);

/* Publish up to n messages with one look at the bell and one clock read.
 * Returns how many were published; an error only if none was.  With
 * SHMQ_ATOMIC all go to one partition (that of msgs[0]) and every subscriber
 * sees all or none; n is at most depth/4 (SHMQ_EBATCH).  A member's prefix
 * takes 16 bytes of its slot: where a topic has no arena (shmq_plan), members
 * have at most inline_bytes - 16 (SHMQ_ETOOBIG). */
#define SHMQ_ATOMIC 1u
ssize_t shmq_publish_batch(shmq_pub *pub, struct shmq_msg *msgs, size_t n, unsigned flags);

/* Zero-copy: get `len` writable bytes (the arena itself when larger than a
 * slot), fill them, commit.  At most one claim is open per publisher; it
 * holds nothing that another process could wait for.  In commit msg may be
 * NULL; msg->data is ignored, msg->len (if non-zero) may shorten the claim.
 * Key and properties cannot be combined with a claim. */
int shmq_claim(shmq_pub *pub, size_t len, void **data);
int shmq_commit(shmq_pub *pub, struct shmq_msg *msg);
int shmq_abort(shmq_pub *pub);

/* Wait until everything published through this handle was consumed by every
 * subscriber attached when it looks (gating policies), or was overwritten.
 * 0, SHMQ_ETIMEOUT, SHMQ_EENDED. */
int shmq_flush(shmq_pub *pub, int64_t timeout_ns);

/* Wait until at least `count` subscribers are attached to the topic. */
int shmq_pub_wait_subscribers(shmq_pub *pub, unsigned count, int64_t timeout_ns);

/* Confirms: how far the log of a topic that has one has come, in one partition.
 * Any thread may ask and wait, also while another one publishes by the handle, but
 * not while it is closed.  SHMQ_EOPTION for a topic without a log, or where there
 * is no such partition. */
enum shmq_confirm {
	SHMQ_WRITTEN = 1, /* in the log's files: outlives every process */
	SHMQ_SYNCED,      /* on the disk: outlives the machine */
};

/* *seq: everything before it is confirmed.  Never blocks, no system call. */
int shmq_pub_confirmed(const shmq_pub *pub, uint32_t partition, enum shmq_confirm level,
		       uint64_t *seq);

/* Wait until the message with this seq (shmq_publish_msg() says it) is confirmed.
 * Many who wait are confirmed by one write or sync.  0, SHMQ_EEMPTY (no wait),
 * SHMQ_ETIMEOUT; SHMQ_EENDED: the topic ended and that much was never written. */
int shmq_pub_wait_confirm(const shmq_pub *pub, uint32_t partition, uint64_t seq,
			  enum shmq_confirm level, int64_t timeout_ns);

/* A descriptor that becomes readable whenever more was confirmed in any partition,
 * at either level: read 8 bytes from it, then ask shmq_pub_confirmed().  It goes
 * with the handle; one thread of the library's waits for all descriptors of a bus.  One thread at a
 * time.  -ENOMEM, -EMFILE, -EAGAIN. */
int shmq_pub_confirm_fd(shmq_pub *pub);

struct shmq_pub_stats {
	uint64_t sent;       /* messages committed */
	uint64_t sent_bytes; /* their payload */
	uint64_t dropped;    /* refused with SHMQ_EFULL or SHMQ_ETIMEOUT */
	uint64_t blocked;    /* times a publish had to wait for credit */
	uint64_t wakes;      /* futex wakes made; not those of the library's thread */
};
/* Any thread, while the handle is open; takes no lock. */
void shmq_pub_get_stats(const shmq_pub *pub, struct shmq_pub_stats *out);

/* ---- subscribing ----------------------------------------------------- */

enum shmq_from {
	SHMQ_FROM_LATEST = 1, /* the next message published (default) */
	SHMQ_FROM_OLDEST,     /* the oldest message in the topic's log; without one,
				 the oldest that is still safe in the ring */
	SHMQ_FROM_SEQ,        /* option `seq`; the oldest if that is gone, the next
				 message if it is not there yet */
	SHMQ_FROM_TIME,       /* the first message whose time is ts_ns or later; needs
				 a topic with a log */
	SHMQ_FROM_CURSOR,     /* where the stored cursor `cursor` stands; the oldest
				 if nothing is stored under that name yet */
};

struct shmq_sub_options {
	size_t size;
	enum shmq_from from;
	uint64_t seq;            /* SHMQ_FROM_SEQ; needs one partition */
	uint64_t ts_ns;          /* SHMQ_FROM_TIME: CLOCK_REALTIME */
	int32_t partition_plus1; /* 0: all partitions; p+1: only partition p */
	enum shmq_wait wait;     /* how to wait; default the topic's hint */
	int64_t spin_ns;         /* adaptive: spin that long first; default 20 us */
	unsigned flags;          /* SHMQ_SUB_* */
	const char *cursor;      /* what shmq_sub_store_cursor() stores under; needs a
				    topic with a log.  Named as topics are */
};
/* Receive returns SHMQ_EENDED once there was a publisher or a message, no
 * publisher is left, and everything is read. */
#define SHMQ_SUB_END_WITH_PUBLISHERS 1u
/* Publishers never wait for this subscriber, whatever the topic's policy: it
 * loses what it is too slow for, and is told, as on a lossy topic. */
#define SHMQ_SUB_OBSERVE 2u
/* On a topic with a log, read its rings only: what is not there is not read, or
 * lost.  Without this flag a subscriber that starts in the past begins in the
 * log, one that publishers pass goes on there, and nothing is lost but what the
 * log has gaps for; publishers do not wait for it meanwhile. */
#define SHMQ_SUB_RING_ONLY 4u
/* Only the newest message of each key, for who is slower than what comes, as a display:
 * each call reads all that is there, and hands out one message of a key for which
 * something came since; keys have their turns.  What a newer one replaces is counted
 * in shmq_sub_stats, and is not lost; what is lost is told as ever.  Messages without a
 * key are of one key; of a pattern, keys of each topic are its own.  All that is handed
 * out is a copy, and takes memory for each key that is not handed out yet.  Atomic
 * batches are not kept together, and no cursor can be named.  Who publishes waits for
 * it only while it is not called for as long as the ring takes to fill. */
#define SHMQ_SUB_CONFLATE 8u
/* What comes from a log is handed out where the system has the file in memory, and is
 * not copied from there: where a segment is complete, not compressed and in memory;
 * else it is read as without the flag.  Checksums are verified as ever, before a message
 * is handed out.  But who has the right to write the files must leave them alone: if one
 * is made shorter meanwhile, or the disk fails while memory is short, who reads the
 * message gets SIGBUS, and what is written there is seen in it. */
#define SHMQ_SUB_IN_PLACE 16u

/* Open `topic` for subscribing, or all topics that a pattern means, as
 * shmq_topic_matches() says, if there is a "*" or "#" in it: those that are there,
 * and those that come later, while the handle is open.
 *
 * The handle of a pattern is used as any other; shmq_sub_topic() says of which topic
 * a message, a loss or an error is.  Topics have their turns, so that a busy one
 * keeps none of the others waiting; in each, order, loss and policy are as for a
 * subscriber that has it alone.  Topics that come later are read from their first
 * message on: whoever publishes to one finds the subscriber in it already, as does
 * shmq_pub_wait_subscribers(), whether or not it is inside a call, and whether or not
 * the supervisor died meanwhile.  Topics that end are left by themselves once they
 * are read to their ends; that only patterns have it open does not keep a topic from
 * being removed.  Where it is evicted it says so, once, and goes on as with
 * SHMQ_SUB_OBSERVE.  A topic that cannot be joined is told by receive, by its error:
 * once, or, for want of memory or descriptors, at each call until it can.
 *
 * A pattern starts FROM_LATEST or FROM_OLDEST in the topics that are there, takes no
 * cursor and all partitions.  SHMQ_SUB_END_WITH_PUBLISHERS ends it when there was a
 * topic and no topic has publishers left.  It ends with SHMQ_EENDED when the bus does,
 * and returns SHMQ_ELOST once that was started anew.
 *
 * Errors: SHMQ_ENAME, SHMQ_ENOTOPIC, SHMQ_EOPTION, SHMQ_EINUSE, -ESTALE (cursor),
 * SHMQ_ELIMIT, SHMQ_EDAEMON, SHMQ_ENODAEMON, -ENOMEM. */
int shmq_sub_open(shmq_bus *bus, const char *topic, const struct shmq_sub_options *options,
		  shmq_sub **out);
void shmq_sub_close(shmq_sub *sub); /* NULL allowed */

/* Name of the topic that the last receive or poll told of, be it by a message or an
 * error; "" before that, and in a forked child.  Good until the next call on the
 * handle; shmq_poll()'s handler may ask.  Of a handle that is none of a pattern: of
 * its topic.  Never NULL. */
const char *shmq_sub_topic(const shmq_sub *sub);

/* Next message as a view: msg->data points into read-only shared memory and
 * is valid until the next call on this subscriber.  On lossy and evict topics
 * the bytes may be overwritten while they are looked at: copy, or finish and
 * then ask shmq_view_check().  Returns 0; SHMQ_EEMPTY (no wait) or
 * SHMQ_ETIMEOUT; SHMQ_EOVERRUN once per loss, with msg->lost, then goes on;
 * SHMQ_EEVICTED (final: open anew), SHMQ_EENDED, SHMQ_ESTALLED, SHMQ_EMOVED
 * (final; of one partition, msg->seq is where its new ring begins),
 * SHMQ_ECORRUPT (the message is counted lost), SHMQ_EFORKED. */
int shmq_receive(shmq_sub *sub, struct shmq_msg *msg, int64_t timeout_ns);

/* 0 if the view handed out last was whole until now, else SHMQ_EOVERRUN: then
 * what was read from it is void, and the message counts as lost. */
int shmq_view_check(shmq_sub *sub, const struct shmq_msg *msg);

/* Client id of the publisher of the message handed out last, for people: several
 * handles of a process share it, and an id is given on once its client has left.
 * 0; SHMQ_EOPTION: there is none, or it was read from the log, which does not say;
 * SHMQ_EOVERRUN: its slot was written over. */
int shmq_sub_get_publisher(const shmq_sub *sub, unsigned *client_id);

/* Next message copied into buf: msg->data = buf, always whole.  key and
 * properties are copied behind the payload.  SHMQ_EBUFFER if capacity is less
 * than msg->len + key_len + properties_len; the message stays. */
int shmq_receive_copy(shmq_sub *sub, void *buf, size_t capacity, struct shmq_msg *msg,
		      int64_t timeout_ns);

/* Hand up to `max` messages that are there to `handler`; waits at most
 * timeout_ns for the first.  The handler returns 0 to go on, anything else
 * to stop after this message.  Returns messages handled (>0), or an error as
 * shmq_receive().  The fastest way to read a stream: where it may wait and messages
 * come as fast as they are read, it lets some gather first, for up to 10 us and as
 * long as that makes all of it faster.  Statistics of the handle may be up to 63
 * messages behind in the handler, and stay so if the process dies there. */
typedef int shmq_handler(void *arg, const struct shmq_msg *msg);
ssize_t shmq_poll(shmq_sub *sub, shmq_handler *handler, void *arg, size_t max, int64_t timeout_ns);

/* A descriptor for poll(2), epoll(7) and event loops, level- or edge-triggered: it is
 * readable until a receive or poll on the handle finds nothing (SHMQ_EEMPTY,
 * SHMQ_ETIMEOUT), and becomes readable, with an edge, when there may be something
 * again: a message, a loss, an end.  So: when it is readable, receive with
 * SHMQ_NOWAIT until that finds nothing, or, level-triggered, as often as you like.
 * It may be readable for nothing, and is every ten seconds; each millisecond while a
 * log is read that has not come further, or where membarrier(2) is missing.  Read
 * nothing from it, and close it not: it goes with the handle.
 *
 * Publishers do for it what they do for a subscriber that sleeps, once after each
 * receive that found nothing; one thread of the library's waits for all descriptors
 * of the bus.  SHMQ_EOPTION on a topic where nobody may sleep (but of a pattern: then
 * it is readable each millisecond); -EMFILE, -ENOMEM, -EAGAIN (no thread). */
int shmq_sub_fd(shmq_sub *sub);

/* Give the current view back now instead of with the next call. */
int shmq_release(shmq_sub *sub);

/* Store how far the subscriber has come under the name of its option `cursor`: in
 * each of its partitions up to what was handed out and given back.  It survives
 * the reader, the supervisor and, once this returns 0, the machine; whoever opens
 * the topic with SHMQ_FROM_CURSOR and that name goes on there, and is told
 * (SHMQ_EOVERRUN) what has been removed from the log meanwhile.  Opening stores
 * where it begins if nothing was stored yet.
 *
 * One subscriber at a time has a name's partition: others are refused with
 * SHMQ_EINUSE by shmq_sub_open(), until it closes or its process and those forked
 * from it end.  -ESTALE there: what is stored is of another log, or further than
 * this one has ever come.
 *
 * Writes a block for each partition that moved, and waits for one fdatasync() of
 * a file of its own: for as long as the disk takes, milliseconds on many.  No
 * supervisor is asked, no publisher waits.  0; SHMQ_EOPTION: the subscriber names
 * no cursor; -ENOSPC, -EIO and so on: what was stored before is, call again. */
int shmq_sub_store_cursor(shmq_sub *sub);

struct shmq_sub_stats {
	uint64_t received;       /* messages handed out and whole */
	uint64_t lost;           /* messages lost, all causes */
	uint64_t lost_is_bound;  /* 1 if that is an upper bound */
	uint64_t lag;            /* messages between cursor and head, now */
	uint64_t sleeps;         /* times it slept */
	uint64_t received_bytes; /* payload of those received */
	uint64_t wakes;          /* futex wakes made, of publishers that waited */
	int evicted;             /* 1 once it was */
	uint64_t conflated;      /* SHMQ_SUB_CONFLATE: replaced before they were received */
};
/* Any thread, while the handle is open; takes no lock.  Of a pattern: the thread that
 * receives. */
void shmq_sub_get_stats(const shmq_sub *sub, struct shmq_sub_stats *out);

/* How long messages take from publish to receive, on a topic with
 * SHMQ_TOPIC_TIME: counted from shmq_sub_latency_start() on, which begins afresh
 * each time, until shmq_sub_latency_stop().  Meanwhile each receive reads the
 * clock once; otherwise nothing is paid for it.  What is read from the log, and
 * what the publisher gave no time, is not counted.  Others see p50, p99, p99.9
 * and the longest in struct shmq_peer_info.
 *
 * Messages are counted in buckets at most 1/32 wide of what they hold: that is
 * how exact percentiles are.  Both clocks are CLOCK_REALTIME of one machine; when
 * it is set back under a message, that counts as 0 and in early. */
struct shmq_latency {
	uint64_t count;
	uint64_t early;             /* of those: received before they were published */
	uint64_t least_ns, mean_ns; /* 0 while count is */
	uint64_t p50_ns, p90_ns, p99_ns, p999_ns;
	uint64_t most_ns;
};
struct shmq_latency_bucket {
	uint64_t from_ns, to_ns; /* both belong to it */
	uint64_t count;          /* never 0 */
};

/* The thread that receives.  0; SHMQ_EOPTION: the topic's messages carry no time, or
 * it is a pattern that is subscribed;
 * -ENOMEM; SHMQ_EFORKED. */
int shmq_sub_latency_start(shmq_sub *sub);
int shmq_sub_latency_stop(shmq_sub *sub);

/* Any thread between start and stop; take no lock.  at: the time that that share
 * (0 to 1) of the messages did not exceed, as *ns.  each: the buckets that hold
 * any, from the shortest on, until visit returns other than 0; that is returned.
 * 0, or SHMQ_EOPTION: it is not measured. */
int shmq_sub_get_latency(const shmq_sub *sub, struct shmq_latency *out);
int shmq_sub_latency_at(const shmq_sub *sub, double share, uint64_t *ns);
int shmq_sub_latency_each(const shmq_sub *sub,
			  int (*visit)(void *arg, const struct shmq_latency_bucket *bucket),
			  void *arg);

/* Those of each topic that it reads now, of a pattern as many as there are; what a
 * pattern had from topics that it left is in shmq_sub_get_stats() alone.  The visitor
 * returns 0 to go on; anything else stops and is returned. */
int shmq_sub_topic_each(const shmq_sub *sub,
			int (*visit)(void *arg, const char *topic,
				     const struct shmq_sub_stats *stats),
			void *arg);

/* ---- waiting on many ------------------------------------------------- */

/* A set of subscribers of one bus.  Wait fills ready[] with up to n that have
 * something to receive (a message, or an end) and returns how many; round-robin,
 * so that nobody starves.  0 never; SHMQ_EEMPTY (no wait, or an empty set) or
 * SHMQ_ETIMEOUT.  A subscriber is in one set at most and leaves it when closed; one
 * that has a listener is refused with SHMQ_EINUSE, as two would receive from it;
 * destroy sets before their bus is closed, or after. */
int shmq_waitset_create(shmq_bus *bus, shmq_waitset **out);
void shmq_waitset_destroy(shmq_waitset *set);
int shmq_waitset_add(shmq_waitset *set, shmq_sub *sub);
int shmq_waitset_remove(shmq_waitset *set, shmq_sub *sub);
int shmq_waitset_wait(shmq_waitset *set, shmq_sub **ready, size_t n, int64_t timeout_ns);

/* As shmq_sub_fd() for all of the set: readable until a wait finds nobody ready. */
int shmq_waitset_fd(shmq_waitset *set);

/* ---- listening ------------------------------------------------------- */

/* Callbacks for what a subscriber, also one of a pattern, receives: on a thread of its
 * own that the library starts, which waits as the subscriber was opened to, or on the
 * caller's pool.  Never two at a time for one subscriber, in the order received. */
typedef struct shmq_listener shmq_listener;

struct shmq_listener_options {
	size_t size;
	/* A message; what msg points to is good, and whole, until it returns.  0 to go on;
	 * with anything else no callback follows. */
	int (*message)(void *arg, shmq_sub *sub, const struct shmq_msg *msg);
	/* What shmq_receive() would return instead of a message.  A loss has msg->lost,
	 * and it goes on, as it does from what passes by itself (SHMQ_ESTALLED, -ENOMEM),
	 * which is told once.  Ends (SHMQ_EENDED, SHMQ_EEVICTED, SHMQ_EMOVED, SHMQ_ELOST)
	 * are the last callback. */
	void (*error)(void *arg, shmq_sub *sub, int error, const struct shmq_msg *msg);
	void *arg; /* of both */
	/* NULL, or: have run(task) called once, soon, on any thread, and return 0.  If it
	 * returns anything else it is asked again a millisecond later.  Called on one
	 * thread of the library's for all listeners of a bus. */
	int (*execute)(void *pool, void (*run)(void *task), void *task);
	void *pool; /* of execute */
};

/* Begin; the subscriber is the listener's until shmq_listener_stop(): but for that,
 * shmq_sub_close(), shmq_sub_topic() and the statistics, nobody else calls it.  *out is
 * set before the first callback.  Closing the subscriber or the bus stops it, too.
 * 0; SHMQ_EINUSE: it has a listener, or is in a wait set; SHMQ_EOPTION: no callback, or
 * a pool on a topic where nobody may sleep; -EAGAIN (no thread), -ENOMEM, -EMFILE. */
int shmq_listener_start(shmq_sub *sub, const struct shmq_listener_options *options,
			shmq_listener **out);

/* End, and free the listener; NULL allowed.  Waits for a callback that runs, and for a
 * run that the pool was given; no callback is called when it returns.  Called from
 * within a callback it waits for nothing, and none follows that one; from within one of
 * another listener of a pool not for a run that has not begun, which does nothing when
 * it comes.  Two that stop each other at once wait for ever.  Once for each
 * listener, after its last callback, too. */
void shmq_listener_stop(shmq_listener *listener);

/* ---- request and reply ----------------------------------------------- */

/* A requester publishes to a topic, and what it publishes is a request: who reads it
 * by a responder answers to a private topic of that requester, which is made with it
 * and ends with it, in a crash too.  The topic of requests is any topic; for several
 * requesters it is a shared one.  Each responder of it gets each request, and the
 * first answer counts.
 *
 * Every request has one outcome.  An answer that comes after it is told as late, and
 * one that nobody waits for any more is not sent, which the responder is told.  Who
 * dies is told to the others as soon as its death is proved, not by a timeout.
 *
 * A handle belongs to one thread at a time, any thread, and closing the bus closes it.
 * Requests carry 36 bytes besides the payload, which is copied, and replies 28. */
typedef struct shmq_requester shmq_requester;
typedef struct shmq_responder shmq_responder;

struct shmq_requester_options {
	size_t size;
	uint64_t max_reply_bytes; /* of payload, key and properties together; default
				     what fits a slot of 512 bytes, at most 16 MiB */
	uint32_t open_max;        /* requests without an outcome at a time; default
				     256, at most 4096 */
	enum shmq_wait wait;      /* how to wait for answers */
	int64_t spin_ns;          /* as of subscribers */
};

enum shmq_outcome {
	SHMQ_REPLIED = 1, /* msg is the reply */
	SHMQ_REFUSED,     /* msg says why */
	SHMQ_GONE,        /* whoever took it closed or died, and all it sent was read */
	SHMQ_TIMED_OUT,
	SHMQ_LATE, /* no outcome: an answer to a request that has one */
};

struct shmq_reply {
	struct shmq_msg msg; /* as of shmq_receive(): of REPLIED, REFUSED and LATE */
	uint64_t id;         /* of the request */
	enum shmq_outcome outcome;
	int is_taken;       /* 1: a responder had received it */
	unsigned client_id; /* which, if is_taken */
};

struct shmq_requester_stats {
	uint64_t sent; /* requests; of them, by outcome: */
	uint64_t replied, refused, gone, timed_out;
	uint64_t open;  /* they have none yet */
	uint64_t late;  /* answers beyond the first, or after the outcome */
	uint64_t stray; /* messages that are no answer */
};

/* The topic must be there.  Errors: as shmq_pub_open() and shmq_topic_create();
 * SHMQ_ENAME: its name is too long; 220 bytes always fit. */
int shmq_requester_open(shmq_bus *bus, const char *topic,
			const struct shmq_requester_options *options, shmq_requester **out);
void shmq_requester_close(shmq_requester *requester); /* NULL allowed */

/* Publish *msg as a request, and have an outcome for it within timeout_ns, which is
 * told by shmq_requester_next(); *id (may be NULL) is its number there.  Waits, at
 * most that long, until somebody subscribes the topic, and for room in it.  Sets what
 * shmq_publish_msg() sets.  0, or nothing was sent: SHMQ_ENOBODY; SHMQ_ELIMIT:
 * open_max are open; else as shmq_publish_msg(). */
int shmq_requester_send(shmq_requester *requester, struct shmq_msg *msg, int64_t timeout_ns,
			uint64_t *id);

/* Next outcome, or late answer, waiting at most timeout_ns: 0 and *reply, which is
 * good until the next call on the handle; SHMQ_EEMPTY (no wait), SHMQ_ETIMEOUT.  It
 * is also what tells requests that time out.  SHMQ_EENDED: the bus ended. */
int shmq_requester_next(shmq_requester *requester, struct shmq_reply *reply, int64_t timeout_ns);

/* Both: send, and wait for the outcome.  Late answers are passed over, and counted.
 * 0 and *reply; SHMQ_EREFUSED and *reply, which says why; SHMQ_EPEERDEAD (GONE);
 * SHMQ_ETIMEOUT; SHMQ_EINUSE: requests are open; or as shmq_requester_send().  Where
 * nothing was sent, as for want of room in time, reply->outcome is 0.  reply may be
 * NULL. */
int shmq_requester_call(shmq_requester *requester, struct shmq_msg *msg, struct shmq_reply *reply,
			int64_t timeout_ns);

/* As shmq_sub_fd(): readable until shmq_requester_next() finds nothing.  It is not for
 * requests that time out: call that then. */
int shmq_requester_fd(shmq_requester *requester);
void shmq_requester_get_stats(const shmq_requester *requester, struct shmq_requester_stats *out);

struct shmq_responder_options {
	size_t size;
	enum shmq_from from; /* default LATEST, or OLDEST */
	enum shmq_wait wait; /* how to wait for requests */
	int64_t spin_ns;
};

/* What a responder has received.  It may be kept, and answered later and in any
 * order; what msg points to is good until the next call on the responder. */
struct shmq_request {
	struct shmq_msg msg;
	uint64_t requester, id; /* whose it is, and its number there */
	uint64_t deadline_ns;   /* CLOCK_MONOTONIC, UINT64_MAX none: when it times out */
	uint32_t uid;           /* as the requester says */
	int error;              /* 0: an answer is waited for.  SHMQ_EOPTION: it is no request but a
				   plain message; SHMQ_EPEERDEAD: the requester is gone; or why its
				   private topic can't be opened */
	char topic[SHMQ_NAME_MAX + 1]; /* on which it came */
};

struct shmq_responder_stats {
	uint64_t received; /* requests; */
	uint64_t replied, refused;
	uint64_t late;       /* answers that were not sent: the request timed out, or */
	uint64_t gone;       /* its requester is gone, or */
	uint64_t full;       /* it does not read its answers */
	uint64_t requesters; /* whose private topics are open now */
};

/* Subscribe `topic`, or a pattern, for requests.  As shmq_sub_open(). */
int shmq_responder_open(shmq_bus *bus, const char *topic,
			const struct shmq_responder_options *options, shmq_responder **out);
/* Requests that were not answered are GONE. */
void shmq_responder_close(shmq_responder *responder); /* NULL allowed */

/* Next message of the topic, as shmq_receive().  The first request of a requester takes
 * a call to the supervisor, which opens the way back. */
int shmq_responder_receive(shmq_responder *responder, struct shmq_request *request,
			   int64_t timeout_ns);

/* Answer, once: payload, key, properties and type of *msg, or a refusal with a
 * reason for people.  Waits at most 10 ms for the requester to make room, and not at
 * all once it did not.  0: it was sent while the requester was there.  Or it was not:
 * SHMQ_ETIMEOUT: too late; SHMQ_EPEERDEAD: the requester is gone; SHMQ_EFULL: it does
 * not read its answers; SHMQ_ETOOBIG: it takes no more than its max_reply_bytes;
 * request->error, if that is not 0. */
int shmq_responder_reply(shmq_responder *responder, const struct shmq_request *request,
			 const struct shmq_msg *msg);
int shmq_responder_refuse(shmq_responder *responder, const struct shmq_request *request,
			  const char *why);

/* As shmq_sub_fd(): readable until shmq_responder_receive() finds nothing. */
int shmq_responder_fd(shmq_responder *responder);
void shmq_responder_get_stats(const shmq_responder *responder, struct shmq_responder_stats *out);

/* ---- logs ------------------------------------------------------------ */

/* The log of a topic, read from its directory: of a bus that is stopped, of a
 * copy that came from another machine of the same byte order, or while a bus
 * writes it, as far as that has come.  No supervisor is asked and, but for
 * shmq_log_repair(), nothing is written.
 *
 * A reader belongs to one thread at a time, any thread; several of one log know
 * nothing of each other.  It is memory and descriptors, so a child of fork() may
 * go on with its own copy.  Calls read files and block for as long as that takes.
 * shmq_bus_error(NULL) says more about a failed one. */
typedef struct shmq_log_reader shmq_log_reader;

/* Where logs are: *out is "DATA/BUS/TOPIC", "DATA/BUS" if topic is NULL, "DATA" if
 * bus is NULL too.  data_dir: NULL for $SHMQ_DATA_DIR, else /var/lib/shmq for
 * root, $XDG_STATE_HOME/shmq or $HOME/.local/state/shmq.  It need not be there.
 * Any thread.  0, SHMQ_EBUSNAME, SHMQ_ENAME, SHMQ_EOPTION (no HOME, or out is too
 * small). */
int shmq_log_dir(const char *data_dir, const char *bus, const char *topic, char *out, size_t bytes);

/* Open the log in directory `dir`.  *out is the caller's until shmq_log_close(),
 * NULL on failure.  -ENOENT, -ENOTDIR, -EACCES; SHMQ_ECORRUPT: there is no log;
 * SHMQ_EVERSION: another version's or byte order's; -ENOMEM, -EMFILE. */
int shmq_log_open(const char *dir, shmq_log_reader **out);
void shmq_log_close(shmq_log_reader *log); /* NULL allowed */

struct shmq_log_info {
	char topic[SHMQ_NAME_MAX + 1];
	uint64_t created_ns; /* CLOCK_REALTIME of the log's beginning */
	int is_damaged;      /* 1: what says whose log this is is missing or damaged;
				topic and partitions are as the segments say, and
				created_ns and options are 0 */
	uint32_t partitions;
	uint64_t segments, bytes, seqs; /* of all partitions, as below */
	uint64_t first_ts_ns, last_ts_ns;
	struct shmq_topic_options options; /* with which the topic was created */
};

struct shmq_log_partition {
	uint32_t partition;
	uint64_t first, next; /* seqs: the oldest there is, and one behind the last */
	uint64_t segments;
	uint64_t bytes;       /* that its files take on the disk, without what is reserved */
	uint64_t first_ts_ns; /* time of its first message, and the latest time of */
	uint64_t last_ts_ns;  /* any; 0 without messages, or if they have none */
};

/* As of now; reads the last segment from its index's last entry on.  0, as
 * shmq_log_open(), or SHMQ_EOPTION: no such partition. */
int shmq_log_get_info(shmq_log_reader *log, struct shmq_log_info *out);
int shmq_log_get_partition(shmq_log_reader *log, uint32_t partition,
			   struct shmq_log_partition *out);

enum shmq_to {
	SHMQ_TO_END = 1, /* as far as the log is written (default) */
	SHMQ_TO_SEQ,     /* before to_seq */
	SHMQ_TO_TIME,    /* before the first message whose time is to_ts_ns or later */
};

struct shmq_log_range {
	size_t size;
	enum shmq_from from;      /* default, also for LATEST: SHMQ_FROM_OLDEST; SEQ and */
	enum shmq_to to;          /* TIME as for subscribers.  A seq needs one partition */
	uint64_t seq, to_seq;     /* SHMQ_FROM_SEQ, SHMQ_TO_SEQ */
	uint64_t ts_ns, to_ts_ns; /* SHMQ_FROM_TIME, SHMQ_TO_TIME */
	int32_t partition_plus1;  /* 0: all, one after the other; p+1: only p */
	unsigned flags;           /* SHMQ_LOG_TAGGED */
	const void *key;          /* only messages with this key; NULL: any */
	size_t key_len;
	uint64_t tag; /* SHMQ_LOG_TAGGED: only messages with this tag */
};
#define SHMQ_LOG_TAGGED 1u

/* Choose what shmq_log_next() reads, from its beginning; NULL: all, as after
 * shmq_log_open().  The key is the caller's, and stays until the reader is closed
 * or another range is chosen.  0, SHMQ_EOPTION. */
int shmq_log_read(shmq_log_reader *log, const struct shmq_log_range *range);

/* Next message: msg->data, key and properties point into the reader, until the
 * next call.  What never was a message is passed.  Returns 0; SHMQ_EOVERRUN once
 * per gap, whatever its cause, with msg->lost and msg->seq, the last seq that is
 * not there, whatever keys and tags are wanted; SHMQ_EENDED.  SHMQ_ECORRUPT or
 * -errno for a place that can't be read or the end of a partition that nothing
 * leads past: the next call goes on behind it. */
int shmq_log_next(shmq_log_reader *log, struct shmq_msg *msg);

struct shmq_log_checks {
	size_t size;
	int32_t partition_plus1; /* 0: all; p+1: only p */
	/* One finding: a line for people, valid during the call. */
	void (*found)(void *arg, uint32_t partition, const char *line);
	/* Now and then: bytes read of about so many.  Returns 0 to go on, anything
	 * else ends the call, which returns that. */
	int (*progress)(void *arg, uint64_t bytes, uint64_t of);
	void *arg; /* of both; either may be NULL */
};

struct shmq_log_verdict {
	uint64_t segments, records, bytes;
	uint64_t damaged;   /* places that are not as they were written */
	uint64_t missing;   /* seqs that are not there because of that */
	uint64_t gaps;      /* seqs that the log itself says it does not have */
	uint64_t indexes;   /* that are missing, damaged or incomplete: reading does
			       without, and takes longer; repair: made anew */
	uint64_t cut_bytes; /* repair: set aside in the partition's directory cut/ */
};

/* Read all of the log and say what is not as it should be.  What a bus is writing
 * at this moment is waited for, a fifth of a second at most.  0, also if something is damaged: see
 * out->damaged; or an error that verifying could not go on behind.  Leaves the
 * place of shmq_log_next() alone. */
int shmq_log_verify(shmq_log_reader *log, const struct shmq_log_checks *checks,
		    struct shmq_log_verdict *out);

/* Make the log in `dir` fit to be gone on with, as the tailer does when it
 * starts: the last segment of each partition is cut behind its last good record,
 * and what is cut off, or is of another log, is moved to the directory cut/.
 * Damage before that stays, and readers pass it as a gap.  Indexes are made anew
 * where they need it.  Takes the lock of the bus's directory, above `dir`, and
 * holds it meanwhile.  In out, segments, indexes and cut_bytes are set.  0;
 * SHMQ_EINUSE: a supervisor writes there; SHMQ_ECORRUPT: nothing says whose log it
 * is; or an error of shmq_log_open(); then some of it may be done. */
int shmq_log_repair(const char *dir, const struct shmq_log_checks *checks,
		    struct shmq_log_verdict *out);

/* ---- stored cursors -------------------------------------------------- */

/* Those of the log in directory `dir` (shmq_log_dir()), whether its bus runs or
 * not.  Any thread; calls read and write files. */
struct shmq_cursor_info {
	char name[SHMQ_NAME_MAX + 1];
	uint32_t partition;
	int error;          /* 0; why it can't be used: SHMQ_ECORRUPT, SHMQ_EVERSION;
			       -ESTALE: it is of another log; -errno.  Then: */
	uint64_t seq;       /* to be read next: all before it is done */
	uint64_t stored_ns; /* CLOCK_REALTIME */
	int is_held;        /* 1: a subscriber has it */
};

/* Call `visit` for each cursor's partitions of which something is stored, until it
 * returns other than 0; that is returned.  0, or as shmq_log_open(). */
int shmq_cursor_each(const char *dir,
		     int (*visit)(void *arg, const struct shmq_cursor_info *cursor), void *arg);

struct shmq_cursor_place {
	size_t size;
	enum shmq_from from;     /* default, and LATEST: behind all that is written;
				    OLDEST, SEQ, TIME as for subscribers */
	uint64_t seq;            /* SHMQ_FROM_SEQ; needs one partition */
	uint64_t ts_ns;          /* SHMQ_FROM_TIME */
	int32_t partition_plus1; /* 0: all partitions; p+1: only partition p */
};

/* Store the cursor `name`, which is made if there is none, durably.  0;
 * SHMQ_EINUSE: a subscriber has it; SHMQ_EOPTION; or as shmq_log_open(). */
int shmq_cursor_set(const char *dir, const char *name, const struct shmq_cursor_place *place);

/* 0, -ENOENT, SHMQ_EINUSE, or as shmq_log_open(). */
int shmq_cursor_remove(const char *dir, const char *name);

/* ---- inspection ------------------------------------------------------ */

/* What all handles of a topic did, those that have left since included, those of the
 * bus itself, as what writes logs, not.  Since the topic was made or moved; of one
 * with a log since the bus started, if that is later. */
struct shmq_topic_stats {
	uint64_t sent, sent_bytes;         /* messages committed, and their payload */
	uint64_t dropped;                  /* refused as full or timed out */
	uint64_t blocked;                  /* times publishers waited for credit */
	uint64_t received, received_bytes; /* by all subscribers: each counts its own */
	uint64_t lost;
	uint64_t sleeps;    /* times subscribers slept */
	uint64_t wakes;     /* futex wakes made by either */
	uint64_t evictions; /* of subscribers */
};

struct shmq_topic_info {
	char name[SHMQ_NAME_MAX + 1];
	uint64_t id;
	uint64_t depth, max_message_bytes;
	uint32_t slot_bytes, inline_bytes, partitions, flags;
	enum shmq_mode mode;
	enum shmq_policy policy;
	enum shmq_stall stall;
	enum shmq_wait wait;
	int ended;           /* removed, memory kept for handles still open */
	uint64_t ring_bytes; /* shared memory of all rings */
	uint64_t page_bytes; /* page size actually used */
	int node_asked;      /* SHMQ_NODE_* */
	int node_actual;     /* where the pages are: SHMQ_NODE(n), 0 if spread */
	int locked;          /* 1 if locked in memory */
	enum shmq_log log;   /* and, unless it is SHMQ_LOG_NONE: */
	enum shmq_sync sync;
	int64_t sync_ns;
	uint64_t segment_bytes, retain_bytes;
	int64_t retain_ns, tombstone_ns;
	int compress;
	unsigned publishers, subscribers;
	uint64_t head;     /* messages of all partitions since its rings were made, voids
			      included; of a topic with a log all that ever were, as
			      their seqs count them: starts of the bus do not matter */
	uint64_t sleepers; /* subscribers asleep now, those of the bus left out */
	char note[256];    /* fall-backs taken, "" if none */
	struct shmq_topic_stats stats;
	uint64_t arena_bytes; /* of the arenas of the publishers that are there */
};

struct shmq_partition_info {
	uint32_t partition;
	uint64_t head;   /* next seq to be published */
	uint64_t oldest; /* lowest seq that may still be read */
	uint64_t voids;  /* holes made by recovery; at most the last 448 */
	int holder;      /* client id of the gating subscriber furthest behind,
			    or -1 */
	uint64_t holder_lag;
	int holds_back;       /* 1: a publisher waits for it, be it for slots or for
				 arena, or would with its next message */
	uint64_t log_first;   /* with a log: the oldest seq that is kept, and before */
	uint64_t log_written; /* which all is in its files, and survives the machine */
	uint64_t log_synced;
	int log_error;      /* why it does not go on, 0 if it does */
	uint64_t log_left;  /* bytes left on its disk, in whole MiB, a second ago */
	int log_is_low;     /* 1: that is less than two segments, or four where keys are
			       kept, or a twentieth of it */
	int claimer;        /* client id of a publisher in whose claim others stand,
			       or -1 */
	uint64_t claim_seq; /* which that is */
};

struct shmq_peer_info {
	enum shmq_role role;
	unsigned client_id;
	pid_t pid;
	uid_t uid;
	char client_name[32];
	int gating;   /* publishers wait for it */
	int sleeping; /* asleep now */
	int waiting;  /* publisher: held back inside a publish or a flush */
	int evicted;
	int32_t partition; /* SHMQ_ANY_PARTITION, or the one it is bound to */
	int arena_node;    /* publisher: where that is: SHMQ_NODE(n), 0 if spread or in a pool */
	uint64_t count;    /* messages sent or received */
	uint64_t bytes;
	uint64_t lost;        /* subscriber: lost; publisher: dropped */
	uint64_t lag;         /* subscriber: messages behind, all its partitions */
	uint64_t waits;       /* times a subscriber slept, a publisher waited for credit */
	uint64_t wakes;       /* futex wakes it made, its library's thread included */
	uint64_t opened_ns;   /* CLOCK_REALTIME */
	uint64_t arena_bytes; /* publisher: its arena */
	uint64_t page_bytes;  /* of its own entries: what it says to others */
	/* Subscriber that measures (shmq_sub_latency_start()): publish to receive, as
	 * of a tenth of a second ago or of its last sleep; else 0. */
	uint64_t p50_ns, p99_ns, p999_ns, most_ns;
};

/* A device that logs are on, as of the tailer's start. */
struct shmq_disk_info {
	uint64_t device;        /* st_dev of stat(2) */
	char dir[240];          /* a directory on it that logs of this bus are in, cut short */
	uint64_t written_bytes; /* into logs, by all tailers so far */
};

struct shmq_client_info {
	unsigned client_id;
	pid_t pid;
	uid_t uid;
	char name[32];
	int is_dead;                              /* 1: it died, or left, and is being taken out */
	int is_own;                               /* 1: it is the bus's own, as what writes logs */
	unsigned topics, publishers, subscribers; /* that it has open; handles there */
	unsigned patterns;                        /* subscriptions by pattern */
	uint64_t sent, received, lost;            /* by the handles that are open */
	uint64_t ring_bytes;  /* of the rings of those topics, which others share */
	uint64_t arena_bytes; /* of its arenas */
	uint64_t page_bytes;  /* of its own entries: what it says to others */
};

struct shmq_bus_info {
	char name[SHMQ_BUS_NAME_MAX + 1];
	pid_t daemon_pid; /* control worker, as last known; 0 after a stop */
	pid_t parent_pid;
	uint64_t epoch;      /* control workers so far */
	uint64_t started_ns; /* CLOCK_REALTIME of the bus's first start */
	unsigned topics, clients;
	uint64_t bytes; /* shared memory in use */
	uint32_t layout_version;
};

/* All read shared memory only and work while the supervisor is away.  A
 * visitor returns 0 to go on; anything else stops and is returned. */
int shmq_bus_get_info(shmq_bus *bus, struct shmq_bus_info *out);
int shmq_topic_get_info(shmq_bus *bus, const char *name, struct shmq_topic_info *out);
int shmq_topic_get_partition(shmq_bus *bus, const char *name, uint32_t partition,
			     struct shmq_partition_info *out);
int shmq_partition_each(shmq_bus *bus, const char *topic,
			int (*visit)(void *arg, const struct shmq_partition_info *partition),
			void *arg);
int shmq_topic_each(shmq_bus *bus, int (*visit)(void *arg, const struct shmq_topic_info *topic),
		    void *arg);
int shmq_peer_each(shmq_bus *bus, const char *topic,
		   int (*visit)(void *arg, const struct shmq_peer_info *peer), void *arg);

/* Each process that is attached, one by one. */
int shmq_client_each(shmq_bus *bus, int (*visit)(void *arg, const struct shmq_client_info *client),
		     void *arg);

/* Each device that logs are on, if there is a tailer, or was one. */
int shmq_disk_each(shmq_bus *bus, int (*visit)(void *arg, const struct shmq_disk_info *disk),
		   void *arg);

/* The topic a handle was opened on; of a pattern, that of shmq_sub_topic(), SHMQ_EEMPTY
 * if there is none or it was left. */
int shmq_pub_get_topic(const shmq_pub *pub, struct shmq_topic_info *out);
int shmq_sub_get_topic(const shmq_sub *sub, struct shmq_topic_info *out);

#ifdef __cplusplus
}
#endif
#endif
