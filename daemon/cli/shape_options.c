/* SPDX-License-Identifier: MIT */
#include "value.h"

const struct opt_word shape_modes[] = { { "exclusive", SHMQ_EXCLUSIVE },
					{ "shared", SHMQ_SHARED },
					{ NULL, 0 } };
const struct opt_word shape_policies[] = {
	{ "block", SHMQ_BLOCK },
	{ "drop-new", SHMQ_DROP_NEW },
	{ "lossy", SHMQ_LOSSY },
	{ "evict", SHMQ_EVICT },
	{ NULL, 0 },
};
const struct opt_word shape_stalls[] = { { "kill", SHMQ_STALL_KILL },
					 { "report", SHMQ_STALL_REPORT },
					 { NULL, 0 } };
const struct opt_word shape_waits[] = {
	{ "adaptive", SHMQ_WAIT_ADAPTIVE },
	{ "spin", SHMQ_WAIT_SPIN },
	{ "yield", SHMQ_WAIT_YIELD },
	{ "sleep", SHMQ_WAIT_SLEEP },
	{ NULL, 0 },
};
const struct opt_word shape_pages[] = {
	{ "auto", SHMQ_PAGES_AUTO },
	{ "4k", SHMQ_PAGES_4K },
	{ "2m", SHMQ_PAGES_2M },
	{ "1g", SHMQ_PAGES_1G },
	{ NULL, 0 },
};
const struct opt_word shape_locks[] = {
	{ "auto", SHMQ_LOCK_AUTO },
	{ "never", SHMQ_LOCK_NEVER },
	{ "always", SHMQ_LOCK_ALWAYS },
	{ NULL, 0 },
};

static const struct opt_word nodes[] = { { "publisher", SHMQ_NODE_PUBLISHER }, { NULL, 0 } };

const struct opt_word shape_logs[] = {
	{ "none", SHMQ_LOG_NONE },
	{ "block", SHMQ_LOG_BLOCK },
	{ "gap", SHMQ_LOG_GAP },
	{ NULL, 0 },
};
const struct opt_word shape_syncs[] = {
	{ "none", SHMQ_SYNC_NONE },
	{ "interval", SHMQ_SYNC_INTERVAL },
	{ "batch", SHMQ_SYNC_BATCH },
	{ "every", SHMQ_SYNC_EVERY },
	{ NULL, 0 },
};

static const struct opt_word compressions[] = { { "zstd", 3 }, { NULL, 0 } };

#define AT(member) OPT_AT(struct shmq_topic_options, member)

/* Zero means the default in the API, so it is no value here. */
const struct opt shape_options[] = {
	{ "depth", .kind = OPT_SIZE, AT(depth), .arg = "SIZE", .min = 1, .max = UINT64_C(1) << 32,
	  .help = "slots per partition, 1k to 4G, rounded up to a\npower of two (8k)" },
	{ "slot", .kind = OPT_SIZE, AT(slot_bytes), .arg = "SIZE", .min = 64, .max = 4096,
	  .help = "64 to 4096, a multiple of 64 (128)" },
	{ "max", .kind = OPT_SIZE, AT(max_message_bytes), .arg = "SIZE", .min = 1, .max = 1 << 30,
	  .help = "largest message, up to 1GiB (what fits a slot)" },
	{ "partitions", .kind = OPT_COUNT, AT(partitions), .arg = "N", .min = 1, .max = 4096,
	  .help = "1 to 4096 (1)" },
	{ "exclusive", .kind = OPT_SET, AT(mode), .value = SHMQ_EXCLUSIVE,
	  .help = "one publisher at a time, the fastest (default)" },
	{ "shared", .kind = OPT_SET, AT(mode), .value = SHMQ_SHARED,
	  .help = "any number of publishers" },
	{ "policy", .kind = OPT_WORD, AT(policy), .words = shape_policies,
	  .help = "what happens when a subscriber is a ring behind:\n"
		  "publishers wait (default), the new message is\n"
		  "refused, the subscriber loses the oldest, or\n"
		  "publishers wait a while and go on without it" },
	{ "evict-after", .kind = OPT_DURATION, AT(evict_ns), .arg = "TIME", .min = 1,
	  .help = "policy evict: how long publishers wait (100ms)" },
	{ "block-timeout", .kind = OPT_DURATION, AT(block_timeout_ns), .arg = "TIME", .min = 1,
	  .help = "policy block: how long a publish waits (forever)" },
	{ "stall", .kind = OPT_WORD, AT(stall), .words = shape_stalls,
	  .help = "what is done about a publisher stopped inside a\nclaim on a shared topic (kill; report where rules\nlet others publish)" },
	{ "node", .kind = OPT_INDEX, AT(node), .arg = "N|publisher", .words = nodes,
	  .help = "NUMA node of the rings, or that of the first\npublisher (where the kernel likes)" },
	{ "pages", .kind = OPT_WORD, AT(pages), .words = shape_pages,
	  .help = "page size; auto takes hugepages if there are" },
	{ "lock", .kind = OPT_WORD, AT(lock), .words = shape_locks,
	  .help = "lock the rings in memory; auto: when it fits" },
	{ "wait", .kind = OPT_WORD, AT(wait), .words = shape_waits,
	  .help = "how handles wait that do not choose (adaptive)" },
	{ "tag", .kind = OPT_OR, AT(flags), .value = SHMQ_TOPIC_TAG,
	  .help = "messages carry a 64-bit tag" },
	{ "time", .kind = OPT_OR, AT(flags), .value = SHMQ_TOPIC_TIME,
	  .help = "messages carry the time of their publish" },
	{ "spin-only", .kind = OPT_OR, AT(flags), .value = SHMQ_TOPIC_SPIN_ONLY,
	  .help = "nobody may sleep on it, so that no sleeper ever\ninterrupts a publisher" },
	{ "log", .kind = OPT_WORD, AT(log), .words = shape_logs,
	  .help = "keep it on disk: publishers wait for the log, or\n"
		  "never do and it has gaps (none)" },
	{ "sync", .kind = OPT_WORD, AT(sync), .words = shape_syncs,
	  .help = "when the log is made to survive the machine:\n"
		  "never, every so often (default), after so much,\nat once" },
	{ "sync-after", .kind = OPT_DURATION, AT(sync_ns), .arg = "TIME", .min = 1,
	  .help = "how often: sync interval (1s), batch (5ms)" },
	{ "log-dir", .kind = OPT_TEXT, AT(log_dir), .arg = "DIR",
	  .help = "keep it there, one of those of shmqd --log-dirs,\nsay on another disk" },
	{ "segment", .kind = OPT_SIZE, AT(segment_bytes), .arg = "SIZE", .min = 1 << 20,
	  .max = UINT64_C(1) << 40, .help = "of the log's files, 1MiB to 1TiB (1GiB)" },
	{ "retain", .kind = OPT_SIZE, AT(retain_bytes), .arg = "SIZE", .min = 1,
	  .help = "of each partition's log; older files are removed\n(all are kept)" },
	{ "retain-for", .kind = OPT_DURATION, AT(retain_ns), .arg = "TIME", .min = 1,
	  .help = "likewise what is older than that" },
	{ "retain-cursors", .kind = OPT_OR, AT(flags), .value = SHMQ_TOPIC_RETAIN_CURSORS,
	  .help = "but nothing that a stored cursor still needs" },
	{ "retain-keys", .kind = OPT_OR, AT(flags), .value = SHMQ_TOPIC_RETAIN_KEYS,
	  .help = "of each key the last message only; one of nothing\nbut a key deletes it" },
	{ "tombstones", .kind = OPT_DURATION, AT(tombstone_ns), .arg = "TIME", .min = 1,
	  .help = "how long what deletes a key is kept (1d)" },
	{ "compress", .kind = OPT_COUNT, AT(compress), .arg = "zstd|LEVEL", .words = compressions,
	  .min = 1, .max = 19,
	  .help = "the log's files once they are complete: by zstd,\nof level 1 to 19 or 3 (they are not)" },
};
const size_t shape_option_count = ARRAY_COUNT(shape_options);
