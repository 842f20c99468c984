/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* ---- what messages point into ---------------------------------------- */

static void keep(struct history *h, json_t *object, char *bytes)
{
	h->kept = cli_grow(h->kept, h->count, &h->room, sizeof(*h->kept));
	h->kept[h->count++] = (struct history_kept){ object, bytes };
}

void history_release(struct history *h)
{
	while (h->count) {
		struct history_kept *kept = &h->kept[--h->count];

		json_decref(kept->object);
		free(kept->bytes);
	}
}

void history_clear(struct history *h)
{
	history_release(h);
	free(h->kept);
	*h = (struct history){ 0 };
}

/* ---- fields ---------------------------------------------------------- */

static int digit_of(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* Decode in place: how many bytes, -1 if it is no Base64. */
static ssize_t decode(char *text, size_t len)
{
	unsigned char *to = (unsigned char *)text;
	uint32_t group = 0;
	size_t i, pad = 0;
	int digit;

	if (len % 4)
		return -1;
	for (i = 0; i < len; i++) {
		pad += text[i] == '=';
		digit = pad ? 0 : digit_of(text[i]);
		if (digit < 0 || (pad && (text[i] != '=' || i + 2 < len)))
			return -1;
		group = group << 6 | (uint32_t)digit;
		if (i % 4 != 3)
			continue;
		*to++ = (unsigned char)(group >> 16);
		*to++ = (unsigned char)(group >> 8);
		*to++ = (unsigned char)group;
	}
	return (char *)to - text - (ssize_t)pad;
}

/* `name`, or `name`_base64, NULL and 0 if neither is there. */
static const char *take_bytes(struct history *h, json_t *object, const char *name,
			      const void **data, size_t *len)
{
	json_t *value = json_object_get(object, name);
	char encoded[32], *bytes;
	ssize_t n;

	if (value && json_is_string(value)) {
		*data = json_string_value(value);
		*len = json_string_length(value);
		return NULL;
	}
	if (value && !json_is_null(value))
		return "is no text";
	snprintf(encoded, sizeof(encoded), "%s_base64", name);
	value = json_object_get(object, encoded);
	if (!value || json_is_null(value))
		return NULL;
	if (!json_is_string(value))
		return "is no text";
	bytes = cli_strdup(json_string_value(value));
	keep(h, NULL, bytes);
	n = decode(bytes, strlen(bytes));
	if (n < 0)
		return "is no Base64";
	*data = bytes;
	*len = (size_t)n;
	return NULL;
}

/* Numbers, and texts of numbers: those that JSON numbers cannot hold. */
static const char *take_number(json_t *object, const char *name, uint64_t max, uint64_t *out)
{
	json_t *value = json_object_get(object, name);

	if (!value || json_is_null(value))
		return NULL;
	if (json_is_integer(value) && json_integer_value(value) >= 0)
		*out = (uint64_t)json_integer_value(value);
	else if (!json_is_string(value) || units_parse_count(json_string_value(value), out) < 0)
		return "is no number from 0 on";
	return *out > max ? "is too large" : NULL;
}

static const char *take_fields(struct history *h, json_t *object, struct shmq_msg *msg,
			       const char **field)
{
	uint64_t partition = UINT64_MAX, type = 0;
	const char *wrong;

#define TAKE(name, call) \
	do { \
		*field = (name); \
		wrong = (call); \
		if (wrong) \
			return wrong; \
	} while (0)
	TAKE("data", take_bytes(h, object, "data", &msg->data, &msg->len));
	if (!msg->data)
		return "is missing";
	TAKE("key", take_bytes(h, object, "key", &msg->key, &msg->key_len));
	TAKE("properties",
	     take_bytes(h, object, "properties", &msg->properties, &msg->properties_len));
	TAKE("type", take_number(object, "type", UINT16_MAX, &type));
	TAKE("tag", take_number(object, "tag", UINT64_MAX, &msg->tag));
	TAKE("ts", take_number(object, "ts", UINT64_MAX, &msg->ts_ns));
	TAKE("lost", take_number(object, "lost", UINT64_MAX, &msg->lost));
	if (json_object_get(object, "partition"))
		TAKE("partition", take_number(object, "partition", INT32_MAX, &partition));
#undef TAKE
	msg->type = (uint16_t)type;
	msg->partition = partition > INT32_MAX ? SHMQ_ANY_PARTITION : (int32_t)partition;
	return NULL;
}

int history_parse(struct history *h, const char *line, size_t len, struct shmq_msg *msg)
{
	json_error_t error;
	json_t *object = json_loadb(line, len, JSON_ALLOW_NUL, &error);
	const char *field = "", *wrong;

	*msg = (struct shmq_msg){ .partition = SHMQ_ANY_PARTITION };
	if (!object || !json_is_object(object)) {
		snprintf(h->why, sizeof(h->why), "%s",
			 object ? "it is no JSON object" : error.text);
		json_decref(object);
		return -1;
	}
	keep(h, object, NULL);
	wrong = take_fields(h, object, msg, &field);
	if (!wrong)
		return 0;
	snprintf(h->why, sizeof(h->why), "\"%s\" %s", field, wrong);
	return -1;
}
