//! What every conversion needs: durations, wrappers, enums, and refusing what is not supported, each with its path.
