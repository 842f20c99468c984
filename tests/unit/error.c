/* SPDX-License-Identifier: MIT */
#include "error.h"
#include "tap.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

static const struct {
	int value;
	const char *name, *text;
} all[] = {
#define ONE(name, value, text) { value, "SHMQ_" #name, text },
	SHMQ_ERRORS(ONE)
#undef ONE
};

enum { ALL = sizeof(all) / sizeof(all[0]) };

TEST(every_error_has_its_text_and_name)
{
	for (int i = 0; i < ALL; i++) {
		CHECK_STR(shmq_strerror(all[i].value), all[i].text);
		CHECK_STR(shmq_errname(all[i].value), all[i].name);
		CHECK_GT(strlen(all[i].text), 5);
	}
}

TEST(no_two_errors_share_a_value_name_or_text_and_none_meets_errno)
{
	for (int i = 0; i < ALL; i++) {
		CHECK_LT(all[i].value, -4096);
		for (int k = 0; k < i; k++) {
			CHECK_NE(all[i].value, all[k].value);
			CHECK(strcmp(all[i].name, all[k].name));
			CHECK(strcmp(all[i].text, all[k].text));
		}
	}
}

TEST(plain_errno_values_are_understood)
{
	CHECK_STR(shmq_strerror(-ENOENT), "No such file or directory");
	CHECK_STR(shmq_errname(-ENOENT), "ENOENT");
	CHECK_STR(shmq_strerror(-EAGAIN), "Resource temporarily unavailable");
	CHECK_STR(shmq_errname(-EAGAIN), "EAGAIN");
}

TEST(success_is_not_an_error)
{
	CHECK_STR(shmq_strerror(0), "success");
	CHECK_STR(shmq_strerror(42), "success");
	CHECK_STR(shmq_errname(0), "OK");
	CHECK_STR(shmq_errname(INT_MAX), "OK");
}

TEST(no_value_has_no_text)
{
	static const int odd[] = { -4095, -4096, -4097, -5000, -5999, -500, INT_MIN, INT_MIN + 1 };

	for (int i = -6000; i < 0; i++) {
		CHECK(shmq_strerror(i));
		CHECK(shmq_errname(i));
	}
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		CHECK_STR(shmq_strerror(odd[i]), "unknown error");
		CHECK_STR(shmq_errname(odd[i]), "UNKNOWN");
	}
}

TEST(the_version_is_that_of_the_header)
{
	char want[32];

	snprintf(want, sizeof(want), "%d.%d.%d", SHMQ_VERSION_MAJOR, SHMQ_VERSION_MINOR,
		 SHMQ_VERSION_PATCH);
	CHECK_STR(shmq_version(), want);
}

TEST(an_explanation_travels_beside_the_error)
{
	struct shmq__why why;
	char longer[2 * SHMQ_WHY_BYTES];

	CHECK_EQ(shmq__fail(&why, SHMQ_EOPTION, "depth %d", 5), SHMQ_EOPTION);
	CHECK_STR(why.text, "depth 5");
	CHECK_EQ(shmq__fail(NULL, -ENOENT, "depth %d", 5), -ENOENT);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	CHECK_EQ(shmq__fail(&why, SHMQ_ELIMIT, "%s", longer), SHMQ_ELIMIT);
	CHECK_EQ(strlen(why.text), SHMQ_WHY_BYTES - 1);
}
