/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <string.h>

const struct opt_word format_words[] = {
	{ "text", FORMAT_TEXT }, { "hex", FORMAT_HEX },       { "json", FORMAT_JSON },
	{ "raw", FORMAT_RAW },   { "frames", FORMAT_FRAMES }, { NULL, 0 },
};

static void put(const void *data, size_t len)
{
	if (len)
		fwrite_unlocked(data, 1, len, stdout);
}

static void put_prefix(const struct format_message *message)
{
	if (message->flags & FORMAT_TOPIC) {
		put(message->topic, strlen(message->topic));
		put("\t", 1);
	}
	if (message->flags & FORMAT_KEY) {
		put(message->msg->key, message->msg->key_len);
		put("\t", 1);
	}
}

static void write_text(const struct format_message *message)
{
	put_prefix(message);
	put(message->msg->data, message->msg->len);
	put("\n", 1);
}

static void write_hex(const struct format_message *message)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *data = message->msg->data;
	size_t i;

	put_prefix(message);
	for (i = 0; i < message->msg->len; i++) {
		putc_unlocked(digits[data[i] >> 4], stdout);
		putc_unlocked(digits[data[i] & 15], stdout);
	}
	put("\n", 1);
}

static void write_raw(const struct format_message *message)
{
	put(message->msg->data, message->msg->len);
}

static void write_frame(const struct format_message *message)
{
	size_t len = message->msg->len;
	const unsigned char prefix[] = {
		(unsigned char)len,
		(unsigned char)(len >> 8),
		(unsigned char)(len >> 16),
		(unsigned char)(len >> 24),
	};

	put(prefix, sizeof(prefix));
	put(message->msg->data, len);
}

/* Tags are 64 bits, which JSON numbers of most readers are not: hex text. */
static json_t *json_tag(const struct format_message *message)
{
	char text[24];

	if (!(message->has & SHMQ_TOPIC_TAG))
		return json_null();
	snprintf(text, sizeof(text), "0x%016llx", (unsigned long long)message->msg->tag);
	return json_string(text);
}

static void write_json(const struct format_message *message)
{
	const struct shmq_msg *msg = message->msg;
	json_t *object = json_object();

	json_put_text(object, "topic", message->topic);
	json_put(object, "partition", json_integer(msg->partition));
	json_put_u64(object, "seq", msg->seq);
	if (message->has & SHMQ_TOPIC_TIME)
		json_put_u64(object, "ts", msg->ts_ns);
	else
		json_put(object, "ts", json_null());
	json_put(object, "type", json_integer(msg->type));
	json_put(object, "tag", json_tag(message));
	if (msg->key_len)
		json_put_bytes(object, "key", msg->key, msg->key_len);
	else
		json_put(object, "key", json_null());
	if (msg->properties_len)
		json_put_bytes(object, "properties", msg->properties, msg->properties_len);
	json_put_bytes(object, "data", msg->data, msg->len);
	json_put_u64(object, "lost", message->lost);
	if (message->is_bound)
		json_put(object, "lost_is_bound", json_true());
	json_print(object);
}

static void (*const writers[])(const struct format_message *message) = {
	[FORMAT_TEXT] = write_text, [FORMAT_HEX] = write_hex,      [FORMAT_JSON] = write_json,
	[FORMAT_RAW] = write_raw,   [FORMAT_FRAMES] = write_frame,
};

int format_write(enum format format, const struct format_message *message)
{
	errno = 0;
	writers[format](message);
	if (!ferror_unlocked(stdout))
		return 0;
	return errno ? -errno : -EIO;
}
