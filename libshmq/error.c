/* SPDX-License-Identifier: MIT */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	int value;
	const char *name, *text;
} table[] = {
#define SHMQ_X(n, v, t) { SHMQ_##n, "SHMQ_" #n, t },
	SHMQ_ERRORS(SHMQ_X)
#undef SHMQ_X
};

SHMQ_EXPORT const char *shmq_strerror(int error)
{
	const char *text;
	size_t i;

	if (error >= 0)
		return "success";
	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].value == error)
			return table[i].text;
	text = error > -4096 ? strerrordesc_np(-error) : NULL;
	return text ? text : "unknown error";
}

SHMQ_EXPORT const char *shmq_errname(int error)
{
	const char *name;
	size_t i;

	if (error >= 0)
		return "OK";
	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].value == error)
			return table[i].name;
	name = error > -4096 ? strerrorname_np(-error) : NULL;
	return name ? name : "UNKNOWN";
}

#define STR2(x) #x
#define STR(x) STR2(x)

SHMQ_EXPORT const char *shmq_version(void)
{
	return STR(SHMQ_VERSION_MAJOR) "." STR(SHMQ_VERSION_MINOR) "." STR(SHMQ_VERSION_PATCH);
}

int shmq__fail(struct shmq__why *why, int error, const char *format, ...)
{
	va_list ap;

	if (!why)
		return error;
	va_start(ap, format);
	vsnprintf(why->text, sizeof(why->text), format, ap);
	va_end(ap);
	return error;
}
