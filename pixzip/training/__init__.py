"""Pictures and a configuration → a trained model and what is known of it."""
