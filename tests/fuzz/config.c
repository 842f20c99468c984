/* SPDX-License-Identifier: MIT
 *
 * The configuration: any text is taken whole or refused with a place, and what
 * is taken is read the same once more.
 */
#include "fuzz.h"

#include "config.h"

#include <stdio.h>
#include <string.h>

const unsigned fuzz_runs = 3000;

enum { STEPS = 1 << 24 };

static unsigned mistakes;

void fuzz_leave(void)
{
}

static void say(void *arg, const char *text)
{
	(void)arg;
	CHECK(!strncmp(text, "f:", 2) && text[2] >= '0' && text[2] <= '9');
	mistakes++;
}

static void differ(void *arg, const struct config_item *item, const char *from, const char *to)
{
	(void)arg;
	FAIL("%s differs from itself: %s, %s", item->key, from ? from : "", to ? to : "");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proto_options options = { 0 };
	struct config *c, *again;
	int rc;

	mistakes = 0;
	rc = WITHIN(STEPS, config_parse("f", (const char *)data, size, &c, say, NULL));
	CHECK(rc == 0 || rc == SHMQ_EOPTION);
	CHECK_EQ(rc == SHMQ_EOPTION, mistakes > 0);
	CHECK_EQ(rc == 0, c != NULL);
	if (!c)
		return 0;
	CHECK_OK(config_parse("f", c->text, c->text_bytes, &again, say, NULL));
	CHECK_EQ(config_compare(c, again, differ, NULL), 0);
	config_fill_defaults(c, &options);
	config_free(again);
	config_free(c);
	return 0;
}
