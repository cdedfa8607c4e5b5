/* SPDX-License-Identifier: Apache-2.0 */
/* The least program: what starting costs. */
int main(void)
{
	return 0;
}
