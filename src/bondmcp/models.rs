//! `GET /health-ai/models`. Its shape is undocumented: an array, at the top or in `models` or `data`, of objects with
//! an `id` or a `name`, or of strings.

use serde_json::Value;

use super::{Client, Error, wire::Extra, wire::Model};
use crate::secret::SecretString;

impl Client {
    /// `GET /health-ai/models`, with an access token or an API key.
    pub async fn list_models(&self, bearer: &SecretString) -> Result<Vec<Model>, Error> {
        let answer = self.read(&["health-ai", "models"], bearer).await?;
        models(answer).ok_or_else(|| self.unreadable())
    }
}

fn models(answer: Value) -> Option<Vec<Model>> {
    let entries = match answer {
        Value::Array(entries) => entries,
        Value::Object(mut fields) => match fields.remove("models").or_else(|| fields.remove("data")) {
            Some(Value::Array(entries)) => entries,
            _ => return None,
        },
        _ => return None,
    };
    entries.into_iter().map(model).collect()
}

fn model(entry: Value) -> Option<Model> {
    match entry {
        Value::String(id) => Some(Model { name: id.clone(), id, extra: Extra::new() }),
        Value::Object(mut extra) => {
            let mut take = |field| match extra.remove(field) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            };
            let (id, name) = match (take("id"), take("name")) {
                (Some(id), Some(name)) => (id, name),
                (Some(one), None) | (None, Some(one)) => (one.clone(), one),
                (None, None) => return None,
            };
            Some(Model { id, name, extra })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_documented_shape_is_read_and_unknown_fields_are_kept() {
        let entry = json!({"id": "m1", "name": "Model One", "context": 8192});
        let expected = Model {
            id: "m1".into(),
            name: "Model One".into(),
            extra: json!({"context": 8192}).as_object().unwrap().clone(),
        };
        for answer in [json!([entry]), json!({"models": [entry]}), json!({"data": [entry], "total": 1})] {
            assert_eq!(models(answer), Some(vec![expected.clone()]));
        }
        for entry in [json!("m2"), json!({"id": "m2"}), json!({"name": "m2"})] {
            let [model] = &models(json!([entry])).unwrap()[..] else { panic!() };
            assert_eq!((model.id.as_str(), model.name.as_str()), ("m2", "m2"));
        }
    }

    #[test]
    fn another_shape_is_no_model_list() {
        for answer in [json!({}), json!("m"), json!({"models": "m"}), json!([{"size": 1}]), json!([7])] {
            assert_eq!(models(answer), None);
        }
    }
}
