"""Writing messages: composing, replying, drafts, and submission by commands."""
