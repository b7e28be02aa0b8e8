"""Which normalization suits CARE on phase contrast: networks trained alike but for the rule, measured in counts."""
