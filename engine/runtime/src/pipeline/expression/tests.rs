//! Conditions that hold, that do not, and that are none.

use super::*;

fn value(name: &str) -> Option<f64> {
    match name {
        "acc" => Some(0.45),
        "acc_delta.lower95" => Some(-0.06),
        "loss_delta.lower95" => Some(0.25),
        "rewards/margins" => Some(1.5),
        "pass@1" => Some(1.0),
        "broken" => Some(f64::NAN),
        _ => None,
    }
}
fn holds(text: &str) -> bool {
    Expr::parse(text).unwrap().evaluate(&value).unwrap()
}

#[test]
fn conditions_hold_or_not() {
    for text in [
        "acc > 0",
        "acc>=.45",
        "not acc > 1",
        "rewards/margins == 1.5 and pass@1 != 0",
        "-1e-1 < acc_delta.lower95",
        "acc > 1 or true",
        "(acc > 1 or acc < 1) and acc == 0.45",
        "acc > 1 and acc > 1 or acc < 1",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in ["acc_delta.lower95 > 0", "acc < 1 and (acc > 1 or false)", "not not acc > 1"] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn mistakes_say_where_and_what() {
    let error = |text: &str| Expr::parse(text).unwrap_err();
    assert_eq!(error("acc").0, 3);
    assert_eq!(error("acc = 1"), (4, "write `==` to compare".to_owned()));
    assert_eq!(error("acc > 1 && acc < 2"), (8, "write `and` or `or`".to_owned()));
    assert_eq!(error("0 < acc < 1").0, 8);
    assert_eq!(error("(acc > 1").0, 8);
    for text in ["", "acc >", "> 1", "acc > 1 acc", "acc ? 1", "acc > 1e999", "acc > é", "not", ")", "acc > 1..2"] {
        assert!(Expr::parse(text).is_err(), "{text}");
    }
    assert!(Expr::parse(&"(".repeat(100_000)).is_err());
    assert!(Expr::parse(&"not ".repeat(100_000)).is_err());
}

#[test]
fn a_false_condition_shows_its_values() {
    let explain = |text: &str| Expr::parse(text).unwrap().explain(&value);
    assert_eq!(explain("acc_delta.lower95 > 0"), "`acc_delta.lower95 > 0` is false (lower95 = -0.06)");
    assert_eq!(
        explain("acc_delta.lower95 > 0 and loss_delta.lower95 > 0"),
        "`acc_delta.lower95 > 0 and loss_delta.lower95 > 0` is false (acc_delta.lower95 = -0.06, loss_delta.lower95 = 0.25)"
    );
    assert_eq!(explain("true"), "`true` is true");
}

#[test]
fn params_are_numbers_truths_and_texts() {
    let param = |name: &str| match name {
        "params.use_dpo" => Some(Operand::Bool(true)),
        "params.rank" => Some(Operand::Number(16.0)),
        "params.method" => Some(Operand::Text("qlora".into())),
        _ => None,
    };
    let bound = |text: &str| {
        let mut expr = Expr::parse(text).unwrap();
        expr.bind(&param);
        expr
    };
    for text in [
        "params.use_dpo",
        "params.use_dpo == true and acc > 0.4",
        "not params.use_dpo or params.method == 'qlora'",
        "params.method != \"lora\" and params.rank >= 16",
    ] {
        let expr = bound(text);
        assert_eq!(expr.check_types(), Ok(()), "{text}");
        assert_eq!(expr.evaluate(&value), Ok(true), "{text}");
        assert!(!expr.names().iter().any(|name| name.starts_with("params.")), "{text}");
    }
    for (text, reason) in [
        ("params.rank", "`params.rank` is neither true nor false: compare it with something"),
        ("params.method > 'a'", "text is compared with `==` and `!=` alone"),
        ("params.method == 4", "`params.method` is text, `4` is a number"),
        ("acc == true", "`acc` is a number, `true` is true or false"),
    ] {
        assert_eq!(bound(text).check_types(), Err(reason.to_owned()), "{text}");
    }
    assert_eq!(
        bound("params.use_dpo and acc > 0.5").explain(&value),
        "`params.use_dpo and acc > 0.5` is false (use_dpo = true, acc = 0.45)"
    );
    assert!(Expr::parse("params.method == 'open").is_err());
}

#[test]
fn a_stage_of_a_matrix_is_one_name() {
    let names = |text: &str| Expr::parse(text).unwrap().names().join(" ");
    assert_eq!(names("eval@lora_r=8,lr=0.0001.acc>0.4"), "eval@lora_r=8,lr=0.0001.acc");
    assert_eq!(names("pass@1==0.5 and pass@1>=0"), "pass@1");
    assert_eq!(names("eval@x=a+b.acc == 1"), "eval@x=a+b.acc");
}

#[test]
fn a_metric_that_is_absent_or_nan_never_passes() {
    assert_eq!(Expr::parse("gone != 1").unwrap().evaluate(&value), Err("there is no metric `gone`".into()));
    assert!(Expr::parse("not broken > 1").unwrap().evaluate(&value).is_err());
    assert!(Expr::parse("true or gone > 1").unwrap().evaluate(&value).is_err());
}
