/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <string.h>

static int is_given(const struct opt *option, const struct shmq_topic_options *shape)
{
	uint64_t value = 0;

	memcpy(&value, (const char *)shape + option->offset, option->bytes);
	if (option->kind == OPT_SET)
		return value == option->value;
	return option->kind == OPT_OR ? (value & option->value) != 0 : value != 0;
}

const char *shape_given(const struct shmq_topic_options *shape)
{
	size_t i;

	for (i = 0; i < shape_option_count; i++)
		if (is_given(&shape_options[i], shape))
			return shape_options[i].name;
	return NULL;
}

/* What says how a log is to be needs one. */
static void check_log(const struct command *command, const struct shmq_topic_options *shape)
{
	const struct {
		int is_given;
		const char *name;
	} needs[] = { { shape->sync != 0, "sync" },
		      { shape->sync_ns != 0, "sync-after" },
		      { shape->log_dir != NULL, "log-dir" },
		      { shape->segment_bytes != 0, "segment" },
		      { shape->retain_bytes != 0, "retain" },
		      { shape->retain_ns != 0, "retain-for" },
		      { (shape->flags & SHMQ_TOPIC_RETAIN_KEYS) != 0, "retain-keys" },
		      { shape->compress != 0, "compress" } };
	int has_log = shape->log && shape->log != SHMQ_LOG_NONE;
	size_t i;

	for (i = 0; i < ARRAY_COUNT(needs); i++)
		if (needs[i].is_given && !has_log)
			opts_fail(command, "--%s needs --log", needs[i].name);
	if ((shape->flags & SHMQ_TOPIC_RETAIN_CURSORS) && !shape->retain_bytes &&
	    !shape->retain_ns && !(shape->flags & SHMQ_TOPIC_RETAIN_KEYS))
		opts_fail(command,
			  "--retain-cursors needs --retain, --retain-for or --retain-keys");
	if (shape->tombstone_ns && !(shape->flags & SHMQ_TOPIC_RETAIN_KEYS))
		opts_fail(command, "--tombstones needs --retain-keys");
	if (shape->sync_ns && shape->sync && shape->sync != SHMQ_SYNC_INTERVAL &&
	    shape->sync != SHMQ_SYNC_BATCH)
		opts_fail(command, "--sync-after needs --sync interval or batch");
	if (shape->sync_ns == SHMQ_FOREVER || shape->retain_ns == SHMQ_FOREVER ||
	    shape->tombstone_ns == SHMQ_FOREVER)
		opts_fail(command, "--%s must end",
			  shape->sync_ns == SHMQ_FOREVER   ? "sync-after" :
			  shape->retain_ns == SHMQ_FOREVER ? "retain-for" :
							     "tombstones");
	if (shape->log == SHMQ_LOG_BLOCK && shape->policy == SHMQ_LOSSY)
		opts_fail(command, "--log block and --policy lossy exclude each other: publishers "
				   "of a lossy topic never wait");
}

void shape_check(const struct command *command, const struct shmq_topic_options *shape)
{
	if (shape->evict_ns && shape->policy != SHMQ_EVICT)
		opts_fail(command, "--evict-after needs --policy evict");
	if (shape->block_timeout_ns && shape->policy && shape->policy != SHMQ_BLOCK)
		opts_fail(command, "--block-timeout needs --policy block");
	if (shape->stall && shape->mode != SHMQ_SHARED)
		opts_fail(command, "--stall needs --shared");
	check_log(command, shape);
}

static void compare_numbers(const char *topic, const char *what, uint64_t asked, uint64_t is)
{
	if (asked && asked != is)
		out_say("note: \"%s\" exists with %s %s, not %s (hint: shmq rm it to change that)",
			topic, what, units_count(is).s, units_count(asked).s);
}

static void compare_words(const char *topic, const char *what, const struct opt_word *words,
			  int asked, int is)
{
	if (asked && asked != is)
		out_say("note: \"%s\" exists with %s %s, not %s (hint: shmq rm it to change that)",
			topic, what, value_word(words, is), value_word(words, asked));
}

static uint64_t round_depth(uint64_t depth)
{
	uint64_t rounded = 1024;

	while (rounded < depth && rounded < (uint64_t)1 << 32)
		rounded *= 2;
	return depth ? rounded : 0;
}

void shape_compare(const struct shmq_topic_options *asked, const struct shmq_topic_info *is)
{
	compare_numbers(is->name, "depth", round_depth(asked->depth), is->depth);
	compare_numbers(is->name, "slot bytes", asked->slot_bytes, is->slot_bytes);
	compare_numbers(is->name, "max", asked->max_message_bytes, is->max_message_bytes);
	compare_numbers(is->name, "partitions", asked->partitions, is->partitions);
	compare_words(is->name, "mode", shape_modes, (int)asked->mode, (int)is->mode);
	compare_words(is->name, "policy", shape_policies, (int)asked->policy, (int)is->policy);
	compare_words(is->name, "log", shape_logs, (int)asked->log,
		      is->log ? (int)is->log : SHMQ_LOG_NONE);
	compare_words(is->name, "sync", shape_syncs, (int)asked->sync, (int)is->sync);
	compare_numbers(is->name, "retain", asked->retain_bytes, is->retain_bytes);
	compare_numbers(is->name, "compress", (uint64_t)asked->compress, (uint64_t)is->compress);
	if (asked->flags & ~is->flags)
		out_say("note: \"%s\" exists without%s%s%s%s%s (hint: shmq rm it to change that)",
			is->name, asked->flags & ~is->flags & SHMQ_TOPIC_TAG ? " --tag" : "",
			asked->flags & ~is->flags & SHMQ_TOPIC_TIME ? " --time" : "",
			asked->flags & ~is->flags & SHMQ_TOPIC_SPIN_ONLY ? " --spin-only" : "",
			asked->flags & ~is->flags & SHMQ_TOPIC_RETAIN_CURSORS ?
				" --retain-cursors" :
				"",
			asked->flags & ~is->flags & SHMQ_TOPIC_RETAIN_KEYS ? " --retain-keys" : "");
}
