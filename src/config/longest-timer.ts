/**
 * Longest time that a flag or variable may set, in seconds: 24 days. The runtime's timers hold milliseconds in 31 bits, and one that is to
 * wait for longer goes off at once.
 */
export const LONGEST_TIMER_S = 24 * 24 * 60 * 60;
