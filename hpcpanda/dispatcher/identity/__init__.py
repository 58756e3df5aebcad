"""Who is calling, and what they may do: tokens, an identity provider, scopes, rates, the audit log."""
