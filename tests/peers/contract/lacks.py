"""What each server is known to lack: server -> case -> what it does instead.

Owns: the one table; the suite holds it to be exact (a case in it that passes is a failure), the matrix prints it.
Called by: the suite and the matrix.
"""

from __future__ import annotations

PEERS = ("fakemail", "dovecot", "greenmail")

_LIST_EXTENDED = (
    "several_patterns_list_each_mailbox_once",
    "only_subscribed_ones_are_listed_when_asked_so",
    "a_subscribed_name_without_a_mailbox_is_listed_as_nonexistent",
    "subscription_and_children_are_returned_when_asked_for",
    "a_recursive_match_tells_of_subscribed_children",
    "a_recursive_match_alone_is_wrong",
    "an_unknown_selection_option_is_wrong",
    "special_use_ones_are_listed_when_asked_so",
    "list_returns_the_status_of_each_mailbox",
)
_ESEARCH = (
    "results_are_summed_up_as_asked",
    "the_answer_names_the_commands_tag",
    "an_empty_list_of_options_means_all",
    "uid_search_is_marked_and_answers_uids",
    "nothing_found_has_neither_min_nor_max_nor_all",
    "an_unknown_result_option_is_wrong",
    "results_by_modseq_tell_the_highest_of_the_found",
)
_CONDSTORE = (
    "select_with_condstore_tells_the_highest_modseq",
    "enable_condstore_is_confirmed",
    "every_message_has_a_modseq_no_higher_than_the_mailboxs",
    "a_change_raises_the_modseq_of_its_message_alone",
    "store_tells_the_new_modseq_even_when_silent",
    "changed_since_lists_only_what_changed",
    "unchanged_since_stores_where_nobody_has_changed",
    "modified_has_message_numbers_where_the_command_had",
    "search_by_modseq_tells_the_highest_of_the_found",
    "search_by_a_modseq_that_nothing_has_finds_nothing",
    "others_changes_come_with_their_modseq",
    "new_mail_and_expunges_raise_the_highest_modseq",
)
_QRESYNC = (
    "enable_qresync_is_confirmed_and_brings_condstore",
    "qresync_without_enable_is_wrong",
    "select_with_qresync_tells_what_went_and_what_changed",
    "the_client_may_name_the_uids_that_it_knows",
    "another_uidvalidity_makes_it_a_plain_select",
    "uid_fetch_tells_what_vanished_since",
    "vanished_without_changed_since_is_wrong",
    "expunge_says_vanished_once_qresync_is_enabled",
    "others_expunges_come_as_vanished",
    "closing_one_mailbox_by_another_is_told",
    "a_moved_message_vanishes_here",
)
_PLAIN = (
    "the_greeting_or_capability_names_the_ways_to_log_in",
    "authenticate_plain_asks_for_the_message",
    "authenticate_plain_takes_the_message_at_once",
    "authenticate_plain_takes_oneself_as_the_one_acted_for",
    "authenticate_plain_refuses_a_wrong_password_by_its_code",
    "a_star_cancels_authenticate_and_the_connection_goes_on",
    "authenticate_without_base64_fails_and_the_connection_goes_on",
)
_STARTTLS = (
    "starttls_turns_the_connection_into_a_new_one",
    "what_stands_behind_starttls_in_the_clear_is_not_obeyed",
    "starttls_is_out_of_place_after_login",
)
_IDLE_UNSELECTED = (
    "idle_without_a_mailbox_is_fine",
    "idle_that_ends_with_anything_but_done_is_wrong",
    "done_in_one_packet_with_the_next_command_is_two_commands",
)
_PARTIALS = (
    "a_partial_begins_at_its_octet_and_tells_it",
    "a_partial_beyond_the_end_is_short_or_empty",
    "partials_of_parts_and_fields_work_too",
    "pieces_put_together_are_the_whole",
)
_BLANK_LINE = (
    "the_old_names_answer_by_their_old_names",
    "header_fields_are_picked_in_the_letters_order_with_a_blank_line",
    "no_such_field_leaves_the_blank_line",
    "a_letter_inside_has_its_own_head_text_and_parts",
    "fields_of_a_letter_inside_are_picked_too",
)
_LAST_LINE_END = (
    "the_whole_its_head_and_its_text_fit_together",
    "part_one_of_a_letter_that_is_no_multipart_is_its_text",
)
_NO_CODES = (
    "create_refuses_what_is_there_by_its_code",
    "delete_refuses_what_is_not_there_by_its_code",
    "rename_refuses_a_name_that_is_taken_and_one_that_is_not_there",
    "a_wrong_password_is_refused_by_its_code_and_the_next_login_works",
    "an_unknown_user_is_refused_like_a_wrong_password",
    "an_unknown_charset_is_refused_by_its_code",
)
_NO_FOR_BAD = (
    "a_second_login_is_out_of_place",
    "commands_on_mailboxes_are_out_of_place_before_login",
    "select_of_what_is_not_there_leaves_nothing_selected",
    "commands_on_messages_are_out_of_place_without_a_mailbox",
    "close_expunges_without_a_word",
    "an_unknown_command_is_bad",
)
_OCTETS = (
    "an_attachment_tells_name_disposition_and_languages",
    "a_letter_inside_has_an_envelope_a_structure_and_lines",
    "every_leaf_tells_the_octets_that_fetch_gives",
)

LACKS: dict[str, dict[str, str]] = {
    "fakemail": {},
    "dovecot": {
        "an_argument_too_many_is_bad": "arguments behind the last one are passed over",
    },
    "greenmail": {
        **dict.fromkeys(_PLAIN, "no AUTH=PLAIN"),
        **dict.fromkeys(_STARTTLS, "no STARTTLS"),
        **dict.fromkeys(_LIST_EXTENDED, "no LIST-EXTENDED"),
        **dict.fromkeys(_ESEARCH, "no ESEARCH"),
        **dict.fromkeys(_CONDSTORE, "no CONDSTORE"),
        **dict.fromkeys(_QRESYNC, "no QRESYNC"),
        "id_takes_nil_and_fields_before_login_and_after": "no ID",
        "enable_answers_what_it_has_enabled_and_skips_what_it_does_not_know": "no ENABLE",
        "namespace_tells_prefix_and_separator": "no NAMESPACE",
        "special_uses_are_among_the_attributes": "no SPECIAL-USE",
        "status_tells_the_size_of_all_messages": "no STATUS=SIZE",
        "unselect_leaves_without_expunging": "no UNSELECT",
        **dict.fromkeys(_NO_CODES, "NO without a response code"),
        **dict.fromkeys(_NO_FOR_BAD, "NO where the command is out of place"),
        "capabilities_differ_before_and_after_login": "the same capabilities before and after the login",
        "login_tells_the_new_capabilities_by_itself": "capabilities only when asked",
        "xoauth2_explains_a_bad_token_before_it_refuses": "NO without the explanation",
        "commands_and_arguments_are_read_without_regard_to_case": "UID's commands in capitals only",
        "every_response_code_is_followed_by_text": "response codes without text",
        "a_percent_sign_stops_at_the_separator_and_a_star_does_not": "a wildcard only at the end of a pattern",
        "list_tells_whether_there_are_children": "no attributes for children",
        "a_name_used_again_has_another_uidvalidity": "the UIDVALIDITY is the second, so it comes again",
        "rename_makes_the_levels_above_the_new_name": "RENAME needs the level above",
        "a_subscription_outlives_its_mailbox": "DELETE takes the subscription away",
        "lsub_with_a_percent_sign_shows_the_level_above_a_subscribed_name": "LSUB % leaves the level above out",
        "a_macro_among_other_items_is_wrong": "macros among other items are taken",
        "a_message_number_that_is_not_there_is_wrong": "OK for a message number that is not there",
        **dict.fromkeys(_BLANK_LINE, "a head without its blank line"),
        **dict.fromkeys(_LAST_LINE_END, "a text without its last line's end"),
        **dict.fromkeys(_PARTIALS, "no space before a partial's literal"),
        "header_fields_not_leaves_the_rest": "HEADER.FIELDS.NOT gives the whole head",
        "mime_gives_the_head_of_a_part": "MIME gives the head of the part around",
        "a_part_that_is_not_there_is_nil_or_empty": "NO for a part that is not there",
        "a_section_that_is_none_is_wrong": "the text for a section that is none",
        "a_group_of_addresses_has_a_beginning_and_an_end": "a group is one address",
        "encoded_names_stay_encoded_and_quoted_local_parts_lose_their_quotes": "names are encoded anew",
        "fields_that_are_missing_are_nil": "a date where there is none",
        "a_letter_without_a_head_has_an_envelope_of_nils": "a date where there is none",
        "an_envelope_has_ten_fields": "the date is written anew",
        "a_simple_text_tells_type_octets_and_lines": "no default charset",
        **dict.fromkeys(_OCTETS, "octets of a part that are not its own"),
        "a_boundary_that_never_comes_leaves_a_structure_that_can_be_read": "a structure that the grammar forbids",
        "keys_of_addresses_and_subjects_find_parts_in_any_case": "SEARCH CC and BCC find nothing",
        "sizes_are_compared_without_the_number_itself": "LARGER and SMALLER with the number itself",
        "dates_of_arrival_disregard_the_time": "dates are compared with their time",
        "dates_of_sending_are_the_heads_own_without_zone": "dates are compared with their time",
        "sets_of_numbers_and_of_uids_are_keys": "no set with a comma in SEARCH",
        "an_unknown_key_is_wrong": "an open parenthesis is taken",
        "flags_need_no_parentheses": "STORE needs parentheses",
        "recent_and_unknown_system_flags_can_not_be_set": r"\Recent can be set",
        "copy_tells_the_uids_of_both_sides": "overlapping sets in COPYUID",
        "uid_copy_of_what_is_not_there_copies_nothing": "COPYUID with empty sets",
        "a_message_that_went_is_still_in_its_place_until_it_is_told": "the numbers of others shift without EXPUNGE",
        "idle_tells_of_flags_and_expunges": "IDLE is silent about flags",
        **dict.fromkeys(_IDLE_UNSELECTED, "IDLE only in a mailbox"),
        "mail_that_comes_is_in_no_answer_before_exists_has_told_it": "rows of mail that EXISTS has not told",
        "a_literal_of_no_size_is_bad": "the connection stalls behind a literal of no size",
        "sets_that_are_none_are_bad": "0 as a message number is taken",
        "parentheses_that_do_not_match_are_bad": "an open parenthesis is taken",
    },
}
